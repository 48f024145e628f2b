"""What of WIDER FACE lies in a folder, compared with what its authors published."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face.annotations import FaceAnnotations, read_annotations
from polynl_mmdet.wider_face.ground_truth import ground_truth_files, read_ground_truth

HOME = 'http://shuoyang1213.me/WIDERFACE/'
IMAGES = {'train': 12880, 'val': 3226, 'test': 16097}
FACES = {'train': 159424, 'val': 39708}
SETTING_FACES = {'easy': 7211, 'medium': 13319, 'hard': 31958}

_FROM = {
    'images': f'WIDER_{{split}}.zip from {HOME}',
    'official': f'wider_face_split.zip from {HOME}',
    'label': 'retinaface_gt_v1.1.zip, linked from detection/retinaface of '
    'https://github.com/deepinsight/insightface',
    'ground_truth': f'eval_tools.zip from {HOME}',
}
_GROUND_TRUTH = ('eval_tools/ground_truth', 'ground_truth')


@dataclass
class Part:
    """One part of the data set.

    Attributes:
        name (str): Its usual path.
        counts (list[tuple[str, int, int]]): What is counted, found, and published.
        problems (list[str]): What is wrong with it, one line each.
        missing (str): Where to get it, if it is not there; else ''.
        optional (bool): Whether training and validation can do without.
    """

    name: str
    counts: list[tuple[str, int, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: str = ''
    optional: bool = False


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
    for split in IMAGES:
        images, found = _check_images(root, split, decode, workers)
        parts.append(images)
        if split in FACES:
            parts.append(_check_official(root, split, found))
            parts.append(_check_label(root, split, found))
    parts.append(_check_ground_truth(root))
    return parts


def _check_images(root: Path, split: str, decode: bool, workers: int) -> tuple[Part, set[str]]:
    """The images of a split; also their names, ``EVENT/NAME.jpg``."""
    part = Part(f'WIDER_{split}/images', optional=split == 'test')
    folder = root / part.name
    if not folder.is_dir():
        part.missing = _FROM['images'].format(split=split)
        return part, set()
    files = sorted(folder.glob('*/*.jpg'))
    part.counts.append(('images', len(files), IMAGES[split]))
    if decode:
        part.problems += [
            f'{file.relative_to(root)}: {reason}' for file, reason in _unreadable(files, workers)
        ]
    return part, {file.relative_to(folder).as_posix() for file in files}


def _unreadable(files: list[Path], workers: int) -> Iterator[tuple[Path, str]]:
    """Yield images that cannot be decoded to the end, and why."""
    with ThreadPoolExecutor(workers) as pool:
        reasons = pool.map(_decode, files)
        description = f'Decoding {files[0].parents[2].name}' if files else 'Decoding'
        bar = tqdm(reasons, desc=description, total=len(files), unit='image', leave=False)
        for file, reason in zip(files, bar):
            if reason:
                yield file, reason


def _decode(file: Path) -> str:
    """Why an image cannot be decoded; '' if it can."""
    try:
        with Image.open(file) as image:
            # An eighth of the size in each direction: all bytes are read, little is computed.
            image.draft('L', (image.width // 8, image.height // 8))
            image.load()
    except UnidentifiedImageError:
        return 'not an image'
    except Exception as error:
        # Damaged images make Pillow stumble in any way: OSError, SyntaxError, struct.error, ...
        return str(error) or type(error).__name__
    return ''


def _check_official(root: Path, split: str, images: set[str]) -> Part:
    part = Part(f'wider_face_split/wider_face_{split}_bbx_gt.txt')
    return _check_annotation(root, split, part, 'official', images)


def _check_label(root: Path, split: str, images: set[str]) -> Part:
    part = Part(f'retinaface_gt_v1.1/{split}/label.txt', optional=split == 'val')
    return _check_annotation(root, split, part, 'label', images)


def _check_annotation(root: Path, split: str, part: Part, kind: str, images: set[str]) -> Part:
    path = root / part.name
    if not path.is_file():
        part.missing = _FROM[kind]
        return part
    try:
        annotations = read_annotations(path)
    except InputError as error:
        part.problems.append(str(error))
        return part
    part.counts.append(('images', len(annotations.names), IMAGES[split]))
    # RetinaFace's training annotation leaves some of the official faces out: no total to match.
    published = FACES[split] if kind == 'official' else 0
    part.counts.append(('faces', len(annotations.rows), published))
    if kind == 'label':
        annotated = int(annotations.landmarks()[1].all(axis=1).sum())
        part.counts.append(('faces with landmarks', annotated, 0))
    part.problems += _absent_images(path, annotations, images)
    return part


def _absent_images(path: Path, annotations: FaceAnnotations, images: set[str]) -> list[str]:
    """Images that an annotation names and that are not there, if any of them is."""
    if not images:
        return []
    return [
        f'{path}:{line}: image {name} is missing'
        for name, line in zip(annotations.names, annotations.lines)
        if name not in images
    ]


def _check_ground_truth(root: Path) -> Part:
    folder = next((name for name in _GROUND_TRUTH if (root / name).is_dir()), _GROUND_TRUTH[0])
    part = Part(folder)
    files = ground_truth_files(root / folder)
    if not any(file.is_file() for file in files.values()):
        part.missing = _FROM['ground_truth']
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
