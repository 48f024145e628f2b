"""The three annotation formats of WIDER FACE, read and written.

- ``bbx_gt``, the official ``wider_face_{train,val}_bbx_gt.txt`` (Yang et al., "WIDER FACE: A Face
  Detection Benchmark", CVPR 2016, arXiv 1511.06523): an image's name, its number of faces, then
  for each face ``x y w h blur expression illumination invalid occlusion pose``. An image without
  faces is followed by one line of zeros. ``x y w h`` alone is read too.
- ``label``, RetinaFace's ``label.txt`` v1.1 (Deng et al., "RetinaFace: Single-Shot Multi-Level Face
  Localisation in the Wild", CVPR 2020, arXiv 1905.00641): ``# name``, then for each face
  ``x y w h``, landmarks ``x y flag`` (all -1: not annotated) and a blur score.
- ``labelv2``, its later release: ``# name width height``, then ``x1 y1 x2 y2`` and the landmarks.

Rows of the last two may have the four numbers of the box alone, as the validation files do. Faces
have five landmarks there; any other number is read as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polynl_mmdet.wider_face.number_table import parse_row, quote, split_lines

FORMATS = ('bbx_gt', 'label', 'labelv2')
_ROWS = {
    'bbx_gt': '"x y w h blur expression illumination invalid occlusion pose" or "x y w h"',
    'label': '"x y w h", landmarks "x y flag" and a blur score, or "x y w h"',
    'labelv2': '"x1 y1 x2 y2" and landmarks "x y flag", or "x1 y1 x2 y2"',
}
_OFFICIAL_COLUMNS, _INVALID = 10, 7


@dataclass
class FaceAnnotations:
    """The content of an annotation file of P images and F faces.

    Image i has the ``rows`` from ``starts[i]`` to ``starts[i + 1]``: the numbers of each face.
    Columns that a row of the file lacks are 0 (bbx_gt) or -1.
    """

    format: str  # one of FORMATS
    names: list[str]  # of each image, usually EVENT/NAME.jpg
    starts: np.ndarray  # (P + 1,) int64
    rows: np.ndarray  # (F, columns) float64
    lines: np.ndarray  # (P,) int64, the line (from 1) that names each image
    sizes: np.ndarray | None = None  # (P, 2) int64, width and height in pixels (labelv2)
    skipped: int = 0  # boxes of zero or negative size, which are not in rows
    notes: list[str] = field(default_factory=list)  # what is skipped or odd, with file and line

    def boxes(self) -> np.ndarray:
        """Return the boxes as x1, y1, x2, y2 in pixels: float64, shape (F, 4)."""
        boxes = self.rows[:, :4].copy()
        if self.format != 'labelv2':
            boxes[:, 2:] += boxes[:, :2]
        return boxes

    def landmarks(self, num_points: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Return the landmarks, and which are annotated.

        A landmark is annotated if its flag is not negative and its x is not either: -1 stands in
        the flag, in the coordinates or in both, depending on who wrote the file. Five landmarks are
        left eye, right eye, nose, left and right mouth corner, as the viewer sees them.

        Returns:
            tuple[np.ndarray, np.ndarray]: x, y in pixels, float64, shape (F, num_points, 2), -1
            where not annotated; and bool, shape (F, num_points).
        """
        marks = _marks(self.rows, self.format)
        if marks.shape[1] not in (0, num_points):
            raise ValueError(f'got {marks.shape[1]} landmarks per face, expected {num_points}')
        if not marks.shape[1]:
            marks = np.full((len(self.rows), num_points, 3), -1.0)
        annotated = (marks[..., 2] >= 0) & (marks[..., 0] >= 0)
        return np.where(annotated[..., None], marks[..., :2], -1.0), annotated

    def invalid(self) -> np.ndarray:
        """Return the official ``invalid`` flag: bool, shape (F,); False where there is none."""
        if self.format == 'bbx_gt':
            return self.rows[:, _INVALID] != 0
        return np.zeros(len(self.rows), dtype=bool)


def read_annotations(path: str | Path, fmt: str = 'auto') -> FaceAnnotations:
    """Read an annotation file in one of ``FORMATS``; 'auto' tells them apart by the first line.

    Raises:
        ValueError: If the file is missing, empty or not in the format; it names file and line.
    """
    path = Path(path)
    if fmt not in ('auto', *FORMATS):
        raise ValueError(f"ann_format: got {fmt!r}, expected 'auto', {str(FORMATS)[1:-1]}")
    try:
        lines = split_lines(path.read_bytes().decode('utf-8-sig'))
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror or error}') from None
    except UnicodeDecodeError as error:
        line = error.object.count(b'\n', 0, error.start) + 1
        raise ValueError(f'{path}:{line}: not UTF-8') from None
    used = [number for number, line in enumerate(lines) if line and not line.isspace()]
    if not used:
        raise ValueError(f'{path}: the file is empty')
    if fmt == 'auto':
        first = lines[used[0]]
        has_size = bool(_split_header(first, 'labelv2')[1])
        fmt = ('labelv2' if has_size else 'label') if first.startswith('#') else 'bbx_gt'
    images = (_scan_official if fmt == 'bbx_gt' else _scan_label)(path, lines, used, fmt)
    row_lines = np.array([number for image in images for number in image.rows], dtype=np.int64)
    rows = _parse_rows(path, lines, row_lines, fmt)
    size = rows[:, 2:4] - rows[:, :2] if fmt == 'labelv2' else rows[:, 2:4]
    kept = (size > 0).all(axis=1)
    counts = [i.line + 1 for i in images if i.count not in (None, len(i.rows))]
    x, y, flag = np.moveaxis(_marks(rows, fmt), 2, 0)
    outside = ((flag >= 0) & (x < 0)).any(axis=1)
    unflagged = ((flag < 0) & (x >= 0) & (y >= 0)).any(axis=1)
    odd = {
        'images whose count differs from their rows; the rows were read': counts,
        'faces with landmarks not used: x is negative, the flag is not': row_lines[outside],
        'faces with landmarks not used: the flag is -1, x and y are not': row_lines[unflagged],
        'boxes of zero or negative size skipped': row_lines[~kept],
    }
    owner = np.repeat(np.arange(len(images)), [len(image.rows) for image in images])
    faces = np.bincount(owner[kept], minlength=len(images))
    notes = [f'{path}:{at[0] + 1}: the first of {len(at)} {w}' for w, at in odd.items() if len(at)]
    return FaceAnnotations(
        fmt,
        [image.name for image in images],
        np.concatenate([[0], np.cumsum(faces)]),
        rows[kept],
        np.array([image.line + 1 for image in images], dtype=np.int64),
        np.array([image.size for image in images]) if fmt == 'labelv2' else None,
        int((~kept).sum()),
        notes,
    )


class _Image(NamedTuple):
    """An image of a file: name, line and lines of its rows (from 0), size and count if stated."""

    name: str
    line: int
    rows: list[int]
    size: tuple[int, ...] = ()
    count: int | None = None


def _split_header(line: str, fmt: str) -> tuple[str, tuple[int, ...]]:
    """Split ``# name``, in a labelv2 ``# name width height``: name, and size if stated."""
    name = line[1:].strip()
    words = name.rsplit(None, 2) if fmt == 'labelv2' else []
    if len(words) == 3 and (words[1] + words[2]).isdecimal():
        return words[0], (int(words[1]), int(words[2]))
    return name, ()


def _scan_label(path: Path, lines: list[str], used: list[int], fmt: str) -> list[_Image]:
    """Find the images and the lines of their rows in a label file."""
    with_size = fmt == 'labelv2'
    images: list[_Image] = []
    for number in used:
        line = lines[number]
        is_header = line.startswith('#')
        if is_header:
            name, size = _split_header(line, fmt)
            images.append(_Image(name, number, [], size))
        if not images or not images[-1].name or bool(images[-1].size) != with_size:
            expected = '"# name width height"' if with_size else '"# name"'
            raise ValueError(f'{path}:{number + 1}: got {quote(line)}, expected {expected}')
        if not is_header:
            images[-1].rows.append(number)
    return images


def _scan_official(path: Path, lines: list[str], used: list[int], fmt: str) -> list[_Image]:
    """Find the images and the lines of their rows in an official file."""
    images: list[_Image] = []
    following = iter(used)
    for number in following:
        line = lines[number].strip()
        if images and _is_row(line):
            images[-1].rows.append(number)
            continue
        count = lines[next(following, -1)].strip()
        if _is_row(line) or not count.isdecimal():
            raise ValueError(
                f'{path}:{number + 1}: got {quote(line)}, expected {_ROWS[fmt]}, or the name of '
                'an image and its number of faces in the next line'
            )
        images.append(_Image(line, number, [], count=int(count[:9])))
    for image in images:
        # The line of zeros after an image without faces.
        if not image.count and image.rows and not set(lines[image.rows[0]].split()) - {'0'}:
            del image.rows[0]
    return images


def _is_row(line: str) -> bool:
    words = line.split()
    try:
        float(words[0]), float(words[-1])
    except ValueError:
        return False
    return len(words) > 1


def _parse_rows(path: Path, lines: list[str], row_lines: np.ndarray, fmt: str) -> np.ndarray:
    """Parse the rows of all images: float64, shape (rows, columns)."""
    official = fmt == 'bbx_gt'
    rows = []
    width = _OFFICIAL_COLUMNS if official else 4
    for number in row_lines.tolist():
        row = parse_row(lines[number], f'{path}:{number + 1}', _ROWS[fmt])
        columns, found = len(row), ''
        # Official: more than ten are read, and not used. Else x y flag, and perhaps a score.
        if columns < 4 or (4 < columns < _OFFICIAL_COLUMNS if official else columns % 3 == 0):
            found = f'{columns} columns in {quote(lines[number])}, expected {_ROWS[fmt]}'
        elif columns > 5 and not official:
            if width not in (4, columns):
                found = f'{columns} columns in {quote(lines[number])}, expected {width} as above'
            width = columns
        if found:
            raise ValueError(f'{path}:{number + 1}: got {found}')
        rows.append(row if columns > 5 else row[:4])
    blank = [0.0 if official else -1.0] * width
    table = [(row + blank[len(row) :])[:width] for row in rows]
    return np.array(table, dtype=np.float64).reshape(-1, width)


def _marks(rows: np.ndarray, fmt: str) -> np.ndarray:
    """Return x, y, flag of each landmark: shape (F, points, 3)."""
    points = 0 if fmt == 'bbx_gt' else (rows.shape[1] - 4) // 3
    return rows[:, 4 : 4 + 3 * points].reshape(len(rows), points, 3)
