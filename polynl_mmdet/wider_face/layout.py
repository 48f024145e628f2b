"""The parts of WIDER FACE in a folder, compared with what its authors published."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face.annotations import read_annotations
from polynl_mmdet.wider_face.ground_truth import ground_truth_files, read_ground_truth

HOME = 'http://shuoyang1213.me/WIDERFACE/'
IMAGES = {'train': 12880, 'val': 3226, 'test': 16097}
# RetinaFace's annotation leaves some of the official faces out: no total to match.
FACES = {'train': 159424, 'val': 39708}
SETTING_FACES = {'easy': 7211, 'medium': 13319, 'hard': 31958}

_OFFICIAL = f'wider_face_split.zip from {HOME}'
_LABEL = (
    'retinaface_gt_v1.1.zip, linked from detection/retinaface of '
    'https://github.com/deepinsight/insightface'
)
_GROUND_TRUTH = ('eval_tools/ground_truth', 'ground_truth')


@dataclass
class Part:
    """One part of the data set.

    Attributes:
        name (str): Its usual path.
        source (str): Where to get it.
        optional (bool): Whether training and validation can do without.
        missing (bool): Whether it is not there.
        counts (list[tuple[str, int, int]]): What is counted, found, and published (0: no total).
        problems (list[str]): What is wrong with it, one line each.
    """

    name: str
    source: str
    optional: bool = False
    missing: bool = False
    counts: list[tuple[str, int, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_layout(root: str | Path, decode: bool = True, workers: int = 4) -> list[Part]:
    """Look at all parts of WIDER FACE in a folder.

    Args:
        root (str | Path): The folder that holds ``WIDER_train`` and so on.
        decode (bool): Decode every image to find those that cannot be read. Otherwise they are
            only counted. Defaults to True.
        workers (int): Threads that decode. Defaults to 4.

    Raises:
        InputError: If ``root`` is no folder, or ``workers`` is below 1.
    """
    if workers < 1:
        raise InputError('--workers', str(workers), 'accepted: 1 or more')
    root = Path(root)
    if not root.is_dir():
        raise InputError(str(root), 'no folder', 'accepted: the folder that holds WIDER_train')
    parts = []
    for split, published in IMAGES.items():
        source = f'WIDER_{split}.zip from {HOME}'
        part = Part(f'WIDER_{split}/images', source, optional=split == 'test')
        names = _check_images(part, root, published, workers if decode else 0)
        parts.append(part)
        if split in FACES:
            official = Part(f'wider_face_split/wider_face_{split}_bbx_gt.txt', _OFFICIAL)
            _check_annotation(official, root, names, published, FACES[split])
            label = Part(f'retinaface_gt_v1.1/{split}/label.txt', _LABEL, optional=split == 'val')
            _check_annotation(label, root, names, published, 0)
            parts += [official, label]
    return [*parts, _check_ground_truth(root)]


def _check_images(part: Part, root: Path, published: int, workers: int) -> set[str]:
    """Count the images of a split and, with workers, decode them; return their names."""
    folder = root / part.name
    part.missing = not folder.is_dir()
    files = sorted(folder.glob('*/*.jpg'))
    part.counts.append(('images', len(files), published))
    if workers:
        with ThreadPoolExecutor(workers) as pool:
            description = f'Decoding {part.name}'
            defects = pool.map(_decoding_defect, files)
            bar = tqdm(defects, desc=description, total=len(files), unit='image', leave=False)
            part.problems += [f'{f.relative_to(root)}: {why}' for f, why in zip(files, bar) if why]
    return {file.relative_to(folder).as_posix() for file in files}


def _decoding_defect(file: Path) -> str:
    """Say why an image cannot be decoded to its end; '' if it can."""
    try:
        with Image.open(file) as image:
            # An eighth of the size in each direction: all bytes are read, little is computed.
            image.draft('L', (image.width // 8, image.height // 8))
            image.load()
    except UnidentifiedImageError:
        return 'not an image'
    except Exception as error:
        # Damaged images make Pillow fail in any way: OSError, SyntaxError, struct.error, ...
        return str(error) or type(error).__name__
    return ''


def _check_annotation(part: Part, root: Path, images: set[str], published: int, faces: int) -> None:
    """Count what an annotation file holds; its images must be among those that are there."""
    path = root / part.name
    part.missing = not path.is_file()
    if part.missing:
        return
    try:
        annotations = read_annotations(path)
    except InputError as error:
        part.problems.append(str(error))
        return
    part.counts.append(('images', len(annotations.names), published))
    part.counts.append(('faces', len(annotations.rows), faces))
    if annotations.format != 'bbx_gt':
        annotated = int(annotations.landmarks()[1].all(axis=1).sum())
        part.counts.append(('faces with landmarks', annotated, 0))
    if images:
        part.problems += [
            f'{path}:{line}: image {name} is missing'
            for name, line in zip(annotations.names, annotations.lines)
            if name not in images
        ]


def _check_ground_truth(root: Path) -> Part:
    folder = next((name for name in _GROUND_TRUTH if (root / name).is_dir()), _GROUND_TRUTH[0])
    part = Part(folder, f'eval_tools.zip from {HOME}')
    part.missing = not any(file.is_file() for file in ground_truth_files(root / folder).values())
    if part.missing:
        return part
    try:
        truth = read_ground_truth(root / folder)
    except InputError as error:
        part.problems.append(str(error))
        return part
    part.counts.append(('images', len(truth.images), IMAGES['val']))
    part.counts.append(('faces', len(truth.boxes), FACES['val']))
    part.counts += [
        (f'faces of {name}', int(counted.sum()), SETTING_FACES[name])
        for name, counted in truth.counted.items()
    ]
    return part
