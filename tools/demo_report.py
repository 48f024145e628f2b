"""Tells what a demo gave: its figures, what they mean, where the images are, what to try next.

Examples:
    python tools/demo_report.py work_dirs/demo
    python tools/demo_report.py work_dirs/demo --page docs/demo.jpg    # README's image
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from polynl_mmdet.errors import InputError, one_line_errors

matplotlib.use('Agg')
import matplotlib.pyplot as plt

# Per evaluated task: the figures that are shown, what they mean, and the command for one's own
# images.
SHAPES = (
    {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP', 'coco/segm_mAP_50': 'mask AP50'},
    'AP50: a shape is found where half of box or mask fits; AP: the mean up to a fit of 95 %. '
    '1 is perfect',
    "python -c \"from mmdet.apis import DetInferencer; DetInferencer('{config}', '{checkpoint}', "
    "device='cpu')('IMAGE.jpg', out_dir='outputs')\"",
)
FACES = (
    {
        'wider_face/easy': 'Easy AP',
        'wider_face/medium': 'Medium AP',
        'wider_face/hard': 'Hard AP',
        'face_landmarks/nme': 'landmark error',
        'face_landmarks/false_boxes': 'false boxes an image',
    },
    "WIDER FACE's protocol: Hard counts faces from 10 pixels on, 1 is perfect; the landmark error "
    'is a share of the distance of the eyes; false boxes score over 0.5 and have no face',
    'python tools/face_demo.py IMAGES {config} {checkpoint} --out faces',
)


def newest(root: Path, pattern: str, what: str) -> Path:
    """Newest file below a folder.

    Args:
        root (Path): Where to look.
        pattern (str): Glob pattern.
        what (str): What is looked for, for the error.

    Returns:
        Path: The file modified last.

    Raises:
        InputError: There is none.
    """
    found = sorted(root.rglob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(str(root), f'no {what} ({pattern}) below it', 'run tools/train.py first')
    return found[-1]


def plot_losses(scalars: Path, out: Path) -> None:
    """Plot every loss of mmengine's local log over the iterations.

    Args:
        scalars (Path): ``vis_data/scalars.json`` of a training run, a JSON object a line.
        out (Path): Image to write.
    """
    records = [json.loads(line) for line in scalars.read_text(encoding='utf-8').splitlines()]
    records = [record for record in records if 'loss' in record]
    if not records:
        raise InputError(str(scalars), 'no losses logged')
    steps = [record['step'] for record in records]
    figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
    for key in sorted(key for key in records[0] if key.startswith('loss')):
        axes.plot(
            steps, [record[key] for record in records], label=key, lw=2 if key == 'loss' else 1
        )
    axes.set(xlabel='iteration', ylabel='loss', yscale='log')
    axes.grid(alpha=0.3, which='both')
    axes.legend()
    figure.savefig(out, dpi=110)


def contact_sheet(
    images: list[Path], out: Path, columns: int = 2, rows: int = 4, quality: int = 95
) -> None:
    """Put the first drawn images (ground truth left, prediction right) on one sheet.

    Args:
        images (list[Path]): Images of one size or several.
        out (Path): Image to write.
        columns, rows (int): Of the sheet. Defaults to 2 x 4.
        quality (int): Of a JPEG file, 1 to 100. Defaults to 95.

    Raises:
        InputError: The sheet cannot be written.
    """
    tiles = [cv2.imread(str(path)) for path in images[: columns * rows]]
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    scale = 2 if width < 500 else 1
    gap = 6
    sheet = np.full(
        (rows * (height * scale + gap), columns * (width * scale + gap), 3), 255, np.uint8
    )
    for index, tile in enumerate(tiles):
        tile = cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        top = index // columns * (height * scale + gap)
        left = index % columns * (width * scale + gap)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    try:
        written = cv2.imwrite(str(out), sheet, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        written = False
    if not written:
        raise InputError(str(out), 'cannot be written', 'accepted: a .jpg or .png in a folder')


def report(work_dir: Path, page: Path | None) -> list[str]:
    """Write loss_curve.png and predictions.jpg into a run's folder.

    Args:
        work_dir (Path): Folder of tools/train.py, with tools/test.py's in ``test``.
        page (Path | None): Where to write a small sheet, 2 x 2, for a page.

    Returns:
        list[str]: What to tell of the run, six lines.

    Raises:
        InputError: A part of the run is missing, or an image cannot be written.
    """
    metrics = json.loads(newest(work_dir / 'test', '[0-9]*/[0-9]*.json', 'test result').read_text())
    names, meaning, own_images = FACES if 'wider_face/easy' in metrics else SHAPES
    losses, sheet = work_dir / 'loss_curve.png', work_dir / 'predictions.jpg'
    plot_losses(newest(work_dir, 'vis_data/scalars.json', 'training log'), losses)
    folder = newest(work_dir, 'images/*', 'drawn prediction').parent
    images = sorted(folder.iterdir())
    contact_sheet(images, sheet)
    if page:
        contact_sheet(images, page, rows=2, quality=80)
    command = own_images.format(
        config=next(work_dir.glob('*.py')),  # written by tools/train.py
        checkpoint=(work_dir / 'last_checkpoint').read_text(),
    )
    figures = ', '.join(f'{name} {metrics[key]:.3f}' for key, name in names.items())
    return [
        f'{len(images)} held-out images: {figures}',
        f'({meaning}.)',
        f'the first eight, truth left, found right: {sheet}; all of them: {folder}',
        f'losses over the training: {losses}',
        f'next, images of your own: {command}',
        'or a config of your own: README.md, "In your own config", has the two lines',
    ]


def main() -> None:
    """Report on the run of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, help='work dir of tools/train.py and tools/test.py')
    parser.add_argument(
        '--page', type=Path, metavar='FILE.jpg', help='also write a small sheet, 2 x 2, for a page'
    )
    args = parser.parse_args()
    with one_line_errors():
        print('\n'.join(report(args.work_dir, args.page)))


if __name__ == '__main__':
    main()
