"""Shows what a run gave: its loss curve, and drawn predictions on one sheet.

Examples:
    python tools/demo_report.py work_dirs/demo
    python tools/demo_report.py work_dirs/demo --page docs/demo.jpg --pick 4 6 10 35   # README's
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
    """Put drawn images (ground truth left, prediction right), spread over all, on one sheet.

    Args:
        images (list[Path]): Images of one size or several.
        out (Path): Image to write.
        columns, rows (int): Of the sheet. Defaults to 2 x 4.
        quality (int): Of a JPEG file, 1 to 100. Defaults to 95.

    Raises:
        InputError: The sheet cannot be written.
    """
    tiles = [cv2.imread(str(path)) for path in images[:: max(1, len(images) // (columns * rows))]][
        : columns * rows
    ]
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


def main() -> None:
    """Write loss_curve.png and predictions.jpg into the run's folder and say where they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, help='work dir of tools/train.py and tools/test.py')
    parser.add_argument(
        '--page', type=Path, metavar='FILE.jpg', help='also write a small sheet, 2 x 2, for a page'
    )
    parser.add_argument(
        '--pick', type=int, nargs=4, metavar='N', help='its images, counted from 0 (else spread)'
    )
    args = parser.parse_args()
    work_dir = args.work_dir
    with one_line_errors():
        losses = work_dir / 'loss_curve.png'
        plot_losses(newest(work_dir, 'vis_data/scalars.json', 'training log'), losses)
        folder = newest(work_dir, 'images/*', 'drawn prediction').parent
        sheet = work_dir / 'predictions.jpg'
        images = sorted(folder.iterdir())
        contact_sheet(images, sheet)
        if args.page:
            if args.pick and not 0 <= min(args.pick) <= max(args.pick) < len(images):
                raise InputError('--pick', f'{args.pick}', f'accepted: 0 to {len(images) - 1}')
            chosen = [images[index] for index in args.pick] if args.pick else images
            contact_sheet(chosen, args.page, rows=2, quality=80)
    print(f'loss curve:                               {losses}')
    print(f'predictions (left: truth, right: model):  {sheet}')
    print(f'every test image, drawn:                {folder}')


if __name__ == '__main__':
    main()
