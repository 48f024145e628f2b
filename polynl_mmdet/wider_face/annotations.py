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

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face.number_table import TableError, parse_table, quote

FORMATS = ('bbx_gt', 'label', 'labelv2')
LANDMARKS = ('left_eye', 'right_eye', 'nose', 'left_mouth_corner', 'right_mouth_corner')

_COLUMNS = {'bbx_gt': (10,), 'label': (4, 19, 20), 'labelv2': (4, 19)}
_ROW_MEANS = {
    'bbx_gt': '"x y w h blur expression illumination invalid occlusion pose"',
    'label': '"x y w h", five landmarks "x y flag" and a blur score, or "x y w h" alone',
    'labelv2': '"x1 y1 x2 y2" and five landmarks "x y flag", or "x1 y1 x2 y2" alone',
}
_INVALID = 7  # column of the official format
_ROWS_A_CHUNK = 16384
_SIZE = re.compile(rb'\d{1,9}')  # of an image in pixels
_ROW_OF_NUMBERS = re.compile(rb'[-+.\deE]+(\s+[-+.\deE]+)+')


@dataclass
class FaceAnnotations:
    """What an annotation file says, every number as it is there.

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
        """Boxes as x1, y1, x2, y2 in pixels: float64, shape (F, 4)."""
        boxes = self.rows[:, :4].copy()
        if self.format != 'labelv2':
            boxes[:, 2:] += boxes[:, :2]
        return boxes

    def landmarks(self) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks in the order of ``LANDMARKS``, and which of them are annotated.

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
        """The official ``invalid`` flag: bool, shape (F,); False where the format has none."""
        if self.format == 'bbx_gt':
            return self.rows[:, _INVALID] != 0
        return np.zeros(len(self.rows), dtype=bool)


def read_annotations(path: str | Path, fmt: str = 'auto') -> FaceAnnotations:
    """Read an annotation file. A progress bar shows if it takes more than three seconds.

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
        data = path.read_bytes()
        data = data[3:] if data.startswith(codecs.BOM_UTF8) else data
    except OSError as error:
        raise InputError(
            str(path), error.strerror or str(error), 'accepted: an annotation file of WIDER FACE'
        ) from None
    lines = data.split(b'\n')
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise InputError(str(path), 'nothing in the file', 'accepted: an annotation file')
    if fmt == 'auto':
        fmt = _guess_format(first)
    scan = _scan_official if fmt == 'bbx_gt' else _scan_label
    names, name_lines, row_lines, starts, sizes = scan(path, lines, fmt)
    rows = _parse_rows(path, lines, row_lines, fmt)
    annotations = FaceAnnotations(
        fmt, names, starts, rows, np.asarray(name_lines, dtype=np.int64) + 1, sizes
    )
    boxes = annotations.boxes()
    negative = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(negative):
        line = row_lines[negative[0]]
        raise InputError(
            f'{path}:{line + 1}',
            f'a box of negative size in {quote(lines[line])}',
            f'accepted: {_ROW_MEANS[fmt]}',
        )
    return annotations


def _guess_format(first: bytes) -> str:
    if not first.startswith(b'#'):
        return 'bbx_gt'
    words = first[1:].rsplit(None, 2)
    return 'labelv2' if len(words) == 3 and all(w.isdigit() for w in words[1:]) else 'label'


def _decode(path: Path, line: int, name: bytes) -> str:
    try:
        return name.decode('utf-8')
    except UnicodeDecodeError:
        raise InputError(
            f'{path}:{line + 1}', f'a name that is not UTF-8: {quote(name)}', 'accepted: UTF-8'
        ) from None


def _scan_label(path: Path, lines: list[bytes], fmt: str) -> tuple:
    """Find the header lines and the rows of a label file (line numbers from 0)."""
    names, name_lines, row_lines, starts, sizes = [], [], [], [], []
    for number, line in enumerate(lines):
        if not line.startswith(b'#'):
            if line and not line.isspace():
                row_lines.append(number)
            continue
        header = line[1:].strip()
        if fmt == 'labelv2':
            words = header.rsplit(None, 2)
            if len(words) != 3 or not all(_SIZE.fullmatch(word) for word in words[1:]):
                raise InputError(
                    f'{path}:{number + 1}', quote(line), 'accepted: "# name width height"'
                )
            header = words[0]
            sizes.append((int(words[1]), int(words[2])))
        if not header:
            raise InputError(f'{path}:{number + 1}', quote(line), 'accepted: "# name"')
        names.append(_decode(path, number, header))
        name_lines.append(number)
        starts.append(len(row_lines))
    if row_lines and (not name_lines or row_lines[0] < name_lines[0]):
        raise InputError(
            f'{path}:{row_lines[0] + 1}',
            f'{quote(lines[row_lines[0]])} before any image is named',
            'accepted: "# name" first',
        )
    starts.append(len(row_lines))
    return (
        names,
        name_lines,
        row_lines,
        np.asarray(starts, dtype=np.int64),
        np.asarray(sizes, dtype=np.int64).reshape(-1, 2) if fmt == 'labelv2' else None,
    )


def _scan_official(path: Path, lines: list[bytes], fmt: str) -> tuple:
    """Find names, counts and rows of an official file (line numbers from 0)."""
    del fmt
    names, name_lines, row_lines, starts = [], [], [], [0]
    used = [number for number, line in enumerate(lines) if line and not line.isspace()]
    at = 0
    while at < len(used):
        number = used[at]
        name = lines[number].strip()
        if _ROW_OF_NUMBERS.fullmatch(name):
            raise InputError(
                f'{path}:{number + 1}',
                f'{quote(name)}, one face more than the image before it announces',
                'accepted: the name of an image',
            )
        count = lines[used[at + 1]].strip() if at + 1 < len(used) else b''
        if not count.isdigit() or len(count) > 9:
            where = f'{path}:{used[at + 1] + 1}' if at + 1 < len(used) else str(path)
            raise InputError(
                where,
                f'{quote(count)} after image {quote(name)}',
                'accepted: its number of faces',
            )
        at += 2
        rows = used[at : at + int(count)]
        names_inside = [row for row in rows if b'/' in lines[row]]
        follow = rows.index(names_inside[0]) if names_inside else len(rows)
        if follow != int(count):
            raise InputError(
                f'{path}:{used[at - 1] + 1}',
                f'image {quote(name)} announces {int(count)} faces, {follow} follow',
                'accepted: as many as announced',
            )
        at += len(rows)
        if not rows and at < len(used):
            # The quirk: no face, but one line of zeros. It may be absent in files of other tools.
            at += int(all(word == b'0' for word in lines[used[at]].split()))
        names.append(_decode(path, number, name))
        name_lines.append(number)
        row_lines += rows
        starts.append(len(row_lines))
    return names, name_lines, row_lines, np.asarray(starts, dtype=np.int64), None


def _parse_rows(path: Path, lines: list[bytes], row_lines: list[int], fmt: str) -> np.ndarray:
    """The numbers of all rows: float64, shape (rows, columns)."""
    columns = _COLUMNS[fmt]
    tables = []
    chunks = range(0, len(row_lines), _ROWS_A_CHUNK)
    for begin in tqdm(chunks, desc=f'Reading {path.name}', unit='chunk', delay=3, leave=False):
        numbers = row_lines[begin : begin + _ROWS_A_CHUNK]
        try:
            table = parse_table(b'\n'.join([lines[number] for number in numbers]), columns)
        except TableError as error:
            raise InputError(
                f'{path}:{numbers[error.row] + 1}', error.found, f'accepted: {_ROW_MEANS[fmt]}'
            ) from None
        columns = table.shape[1]
        tables.append(table)
    return np.concatenate(tables) if tables else np.zeros((0, columns[0]))


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
