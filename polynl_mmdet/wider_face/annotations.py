"""The three annotation formats of WIDER FACE, read and written.

- ``bbx_gt``, the official ``wider_face_{train,val}_bbx_gt.txt`` (Yang et al., "WIDER FACE: A Face
  Detection Benchmark", CVPR 2016, arXiv 1511.06523): an image's name, the number of its faces,
  then for each face ``x y w h blur expression illumination invalid occlusion pose``. An image with
  no face is followed by one line of zeros all the same.
- ``label``, RetinaFace's ``label.txt`` v1.1 (Deng et al., "RetinaFace: Single-Shot Multi-Level Face
  Localisation in the Wild", CVPR 2020, arXiv 1905.00641): ``# name``, then for each face
  ``x y w h``, five landmarks ``x y flag`` (all -1: not annotated) and a blur score.
- ``labelv2``, its later release: ``# name width height``, then ``x1 y1 x2 y2`` and the landmarks.

The validation files of the last two have the four numbers of the box alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face.number_table import parse_table, quote, split_lines

FORMATS = ('bbx_gt', 'label', 'labelv2')
LANDMARKS = ('left_eye', 'right_eye', 'nose', 'left_mouth_corner', 'right_mouth_corner')

_COLUMNS = {'bbx_gt': (10,), 'label': (4, 19, 20), 'labelv2': (4, 19)}
_ROW_MEANS = {
    'bbx_gt': '"x y w h blur expression illumination invalid occlusion pose"',
    'label': '"x y w h", five landmarks "x y flag" and a blur score, or "x y w h" alone',
    'labelv2': '"x1 y1 x2 y2" and five landmarks "x y flag", or "x1 y1 x2 y2" alone',
}
_INVALID = 7  # column of the official format
_SIZE = re.compile(r'[0-9]{1,9}')  # Of an image in pixels, or a number of faces.
_ROW_OF_NUMBERS = re.compile(r'[-+.0-9eE]+(\s+[-+.0-9eE]+)+')


@dataclass
class FaceAnnotations:
    """The content of an annotation file, every number as it is there.

    Attributes:
        format (str): One of ``FORMATS``.
        names (list[str]): Name of each image, usually ``EVENT/NAME.jpg``; length P.
        starts (np.ndarray): int64, shape (P + 1,). Image i has the rows
            ``starts[i]:starts[i + 1]``.
        rows (np.ndarray): float64, shape (F, columns): the numbers of every face.
        lines (np.ndarray): int64, shape (P,): the line (from 1) that names each image.
        sizes (np.ndarray, optional): int64, shape (P, 2): width and height in pixels (labelv2).
    """

    format: str
    names: list[str]
    starts: np.ndarray
    rows: np.ndarray
    lines: np.ndarray
    sizes: np.ndarray | None = None

    def boxes(self) -> np.ndarray:
        """Return the boxes as x1, y1, x2, y2 in pixels: float64, shape (F, 4)."""
        boxes = self.rows[:, :4].copy()
        if self.format != 'labelv2':
            boxes[:, 2:] += boxes[:, :2]
        return boxes

    def landmarks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the landmarks in the order of ``LANDMARKS``, and which are annotated.

        Returns:
            tuple[np.ndarray, np.ndarray]: x, y in pixels, float64, shape (F, 5, 2), -1 where not
            annotated; and bool, shape (F, 5).
        """
        faces = len(self.rows)
        if self.format == 'bbx_gt' or self.rows.shape[1] == 4:
            return np.full((faces, 5, 2), -1.0), np.zeros((faces, 5), dtype=bool)
        marks = self.rows[:, 4:19].reshape(faces, 5, 3)
        annotated = marks[..., 2] >= 0
        return np.where(annotated[..., None], marks[..., :2], -1.0), annotated

    def invalid(self) -> np.ndarray:
        """Return the official ``invalid`` flag: bool, shape (F,); False where there is none."""
        if self.format == 'bbx_gt':
            return self.rows[:, _INVALID] != 0
        return np.zeros(len(self.rows), dtype=bool)


def read_annotations(path: str | Path, fmt: str = 'auto') -> FaceAnnotations:
    """Read an annotation file.

    Args:
        path (str | Path): The file.
        fmt (str): One of ``FORMATS``, or 'auto' to tell by the content: a first line that starts
            with ``#`` is a label file, v2 if width and height follow. Defaults to 'auto'.

    Raises:
        InputError: If the file is absent, empty or not in the format; it names file and line.
    """
    path = Path(path)
    if fmt != 'auto' and fmt not in FORMATS:
        raise InputError('ann_format', repr(fmt), f"accepted: 'auto', {str(FORMATS)[1:-1]}")
    try:
        lines = split_lines(path.read_bytes().decode('utf-8-sig'))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(str(path), reason, 'accepted: an annotation file of WIDER FACE') from None
    except UnicodeDecodeError as error:
        line = error.object.count(b'\n', 0, error.start) + 1
        raise InputError(f'{path}:{line}', 'text that is not UTF-8', 'accepted: UTF-8') from None
    used = [number for number, line in enumerate(lines) if line and not line.isspace()]
    if not used:
        raise InputError(str(path), 'nothing in the file', 'accepted: an annotation file')
    if fmt == 'auto':
        fmt = _guess_format(lines[used[0]])
    scan = _scan_official if fmt == 'bbx_gt' else _scan_label
    images, row_lines = scan(path, lines, used, fmt == 'labelv2')
    accepted = f'accepted: {_ROW_MEANS[fmt]}'
    rows = parse_table(
        [lines[number] for number in row_lines],
        _COLUMNS[fmt],
        lambda row: f'{path}:{row_lines[row] + 1}',
        accepted,
    )
    annotations = FaceAnnotations(
        fmt,
        [image.name for image in images],
        np.array([image.start for image in images] + [len(rows)], dtype=np.int64),
        rows,
        np.array([image.line + 1 for image in images], dtype=np.int64),
        np.array([image.size for image in images]) if fmt == 'labelv2' else None,
    )
    boxes = annotations.boxes()
    negative = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(negative):
        line = row_lines[negative[0]]
        found = f'a box of negative size in {quote(lines[line])}'
        raise InputError(f'{path}:{line + 1}', found, accepted)
    return annotations


class _Image(NamedTuple):
    """Where a file names an image: its line from 0, its first row, and its size if told."""

    name: str
    line: int
    start: int
    size: tuple[int, ...] = ()


def _guess_format(first: str) -> str:
    if not first.startswith('#'):
        return 'bbx_gt'
    words = first[1:].rsplit(None, 2)
    return 'labelv2' if len(words) == 3 and ''.join(words[1:]).isdigit() else 'label'


def _scan_label(
    path: Path, lines: list[str], used: list[int], with_size: bool
) -> tuple[list[_Image], list[int]]:
    """Find the images and the lines of the rows in a label file."""
    accepted = 'accepted: "# name width height"' if with_size else 'accepted: "# name"'
    images: list[_Image] = []
    row_lines: list[int] = []
    for number in used:
        line = lines[number]
        where = f'{path}:{number + 1}'
        if not line.startswith('#'):
            if not images:
                raise InputError(where, f'{quote(line)} before any image is named', accepted)
            row_lines.append(number)
            continue
        header = line[1:].strip()
        name, *size = header.rsplit(None, 2) if with_size and header else [header]
        if not name or len(size) != 2 * with_size or not all(map(_SIZE.fullmatch, size)):
            raise InputError(where, quote(line), accepted)
        images.append(_Image(name, number, len(row_lines), tuple(map(int, size))))
    return images, row_lines


def _scan_official(
    path: Path, lines: list[str], used: list[int], with_size: bool
) -> tuple[list[_Image], list[int]]:
    """Find the images and the lines of the rows in an official file."""
    del with_size
    images: list[_Image] = []
    row_lines: list[int] = []
    at = 0
    while at < len(used):
        number = used[at]
        name = lines[number].strip()
        if _ROW_OF_NUMBERS.fullmatch(name):
            found = f'{quote(name)}, one face more than the image before it announces'
            raise InputError(f'{path}:{number + 1}', found, 'accepted: the name of an image')
        count_line = used[at + 1] if at + 1 < len(used) else number
        count = lines[count_line].strip() if count_line > number else ''
        where = f'{path}:{count_line + 1}'
        if not _SIZE.fullmatch(count):
            found = f'{quote(count)} after image {quote(name)}'
            raise InputError(where, found, 'accepted: its number of faces')
        at += 2
        rows = used[at : at + int(count)]
        follow = next((n for n, row in enumerate(rows) if '/' in lines[row]), len(rows))
        if follow != int(count):
            found = f'image {quote(name)} announces {int(count)} faces, {follow} follow'
            raise InputError(where, found, 'accepted: as many as announced')
        at += len(rows)
        if not rows and at < len(used):
            # The quirk: no face, but one line of zeros. It may be absent in files of other tools.
            at += int(all(word == '0' for word in lines[used[at]].split()))
        images.append(_Image(name, number, len(row_lines)))
        row_lines += rows
    return images, row_lines


def write_annotations(path: str | Path, annotations: FaceAnnotations) -> None:
    """Write annotations in their own format; reading them back gives the same numbers."""
    official = annotations.format == 'bbx_gt'
    with Path(path).open('w', encoding='utf-8', newline='\n') as out:
        for index, name in enumerate(annotations.names):
            rows = annotations.rows[annotations.starts[index] : annotations.starts[index + 1]]
            if official:
                out.write(f'{name}\n{len(rows)}\n')
                rows = rows if len(rows) else np.zeros((1, 10))
            elif annotations.sizes is not None:
                width, height = annotations.sizes[index]
                out.write(f'# {name} {width} {height}\n')
            else:
                out.write(f'# {name}\n')
            for row in rows.tolist():
                # Boxes and official attributes are whole pixels and flags, landmarks are not.
                words = [_whole(value) for value in row[: 10 if official else 4]]
                words += [repr(value) for value in row[len(words) :]]
                out.write(' '.join(words) + (' \n' if official else '\n'))


def _whole(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
