"""Show what of WIDER FACE is in a folder, and where to get what is missing.

    python tools/check_wider_face.py ROOT [--no-decode]

ROOT holds WIDER_train, WIDER_val, wider_face_split and so on. Images and faces are counted
against the published totals, and every image is decoded. The exit status is 1 if something needed
is missing or broken.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == '__main__':
    # Not needed here, and slow to import.
    sys.modules.update(dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmdet')))

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.wider_face import read_ground_truth
from polynl_mmdet.wider_face.annotations import read_annotations
from polynl_mmdet.wider_face.ground_truth import ground_truth_files

HOME = 'http://shuoyang1213.me/WIDERFACE/'
OFFICIAL = f'wider_face_split.zip from {HOME}'
LABEL = (
    'retinaface_gt_v1.1.zip, linked from detection/retinaface of '
    'https://github.com/deepinsight/insightface'
)
IMAGES = {'train': 12880, 'val': 3226, 'test': 16097}
FACES = {'train': 159424, 'val': 39708}
SETTING_FACES = {'easy': 7211, 'medium': 13319, 'hard': 31958}
GROUND_TRUTH = ('eval_tools/ground_truth', 'ground_truth')
MAX_PROBLEMS = 20


class Report:
    """Print the parts, and remember whether one is missing or broken."""

    failed = False

    def missing(self, name: str, source: str, optional: bool = False) -> None:
        """Print a part that is not there, and where to get it."""
        self.failed |= not optional
        print(f'{"not there" if optional else "MISSING":<10} {name}\n{"":<10} get {source}')

    def part(self, name: str, counts: list[tuple[str, int, int]], problems: list[str]) -> None:
        """Print a part: what is counted, here and as published (0: not known), and problems."""
        self.failed |= bool(problems)
        whole = all(here == published for _, here, published in counts if published)
        print(f'{"BROKEN" if problems else "complete" if whole else "partial":<10} {name}')
        lines = [f'{n:,} {what}' + (f' of {total:,}' if total else '') for what, n, total in counts]
        lines += problems[:MAX_PROBLEMS]
        if len(problems) > MAX_PROBLEMS:
            lines.append(f'and {len(problems) - MAX_PROBLEMS} more')
        print(*(f'{"":<10} {line}' for line in lines), sep='\n')


def check_images(report: Report, root: Path, split: str, decode: bool) -> set[str] | None:
    """Count the images of a split and decode them; return their names."""
    name = f'WIDER_{split}/images'
    folder, problems = root / name, []
    nested = root / f'WIDER_{split}' / name
    if nested.is_dir() and not folder.is_dir():
        problems.append(f'found in {nested}: move it to {folder}')
        folder = nested
    if not folder.is_dir():
        report.missing(name, f'WIDER_{split}.zip from {HOME}', optional=split == 'test')
        return None
    files = sorted(path for path in folder.glob('*/*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    if decode and files:
        with ThreadPoolExecutor(4) as pool:
            defects = pool.map(find_defect, files)
            defects = tqdm(defects, f'Decoding {name}', len(files), leave=False, unit='image')
            problems += [f'{f.relative_to(root)}: {why}' for f, why in zip(files, defects) if why]
    report.part(name, [('images', len(files), IMAGES[split])], problems)
    return {file.relative_to(folder).as_posix() for file in files}


def find_defect(file: Path) -> str:
    """Return why an image cannot be decoded to its end; '' if it can."""
    try:
        with Image.open(file) as image:
            # An eighth of the size in each direction: all bytes are read, little is computed.
            image.draft('L', (image.width // 8, image.height // 8))
            image.load()
    except UnidentifiedImageError:
        return 'not an image'
    except Exception as error:  # Pillow raises anything at a damaged image.
        return str(error) or type(error).__name__
    return ''


def check_annotation(report: Report, root: Path, name: str, images: set[str] | None) -> None:
    """Count what an annotation file holds; its images must be among those that are there."""
    path = root / name
    split, official = 'train' if 'train' in name else 'val', name.startswith('wider')
    if not path.is_file():
        report.missing(name, *((OFFICIAL,) if official else (LABEL, split == 'val')))
        return
    try:
        annotations = read_annotations(path)
    except ValueError as error:
        report.part(name, [], [str(error)])
        return
    # RetinaFace's annotation leaves out some of the official faces: no total to match.
    total = FACES[split] if official else 0
    counts = [('images', len(annotations.names), IMAGES[split])]
    counts.append(('faces', len(annotations.rows) + annotations.skipped, total))
    if not official:
        annotated = annotations.landmarks()[1].all(axis=1)
        counts.append(('faces with landmarks', int(annotated.sum()), 0))
    problems = [
        f'{path}:{line}: image {image} is missing'
        for image, line in zip(annotations.names, annotations.lines)
        if images is not None and image not in images
    ]
    report.part(name, counts, problems)
    print(*(f'{"":<10} {note}\n' for note in annotations.notes), sep='', end='')


def check_ground_truth(report: Report, root: Path) -> None:
    """Read the official evaluation files."""
    name = next((name for name in GROUND_TRUTH if (root / name).is_dir()), GROUND_TRUTH[0])
    if not any(file.is_file() for file in ground_truth_files(root / name).values()):
        report.missing(name, f'eval_tools.zip from {HOME}')
        return
    try:
        truth = read_ground_truth(root / name)
    except ValueError as error:
        report.part(name, [], [str(error)])
        return
    counts = [('images', len(truth.images), IMAGES['val'])]
    counts.append(('faces', len(truth.boxes), FACES['val']))
    for setting, counted in truth.counted.items():
        counts.append((f'faces of {setting}', int(counted.sum()), SETTING_FACES[setting]))
    report.part(name, counts, [])


def main() -> int:
    """Check and print; return 1 if something needed is missing or broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', type=Path, metavar='ROOT', help='folder that holds WIDER_train ...')
    parser.add_argument('--no-decode', action='store_true', help='count images without reading')
    args = parser.parse_args()
    if not args.root.is_dir():
        raise InputError(f'{args.root}: no such folder')
    report = Report()
    for split in IMAGES:
        images = check_images(report, args.root, split, not args.no_decode)
        if split in FACES:
            official = f'wider_face_split/wider_face_{split}_bbx_gt.txt'
            for name in (official, f'retinaface_gt_v1.1/{split}/label.txt'):
                check_annotation(report, args.root, name, images)
    check_ground_truth(report, args.root)
    return int(report.failed)


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
