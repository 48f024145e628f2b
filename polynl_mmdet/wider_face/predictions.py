"""Prediction files in the official layout of WIDER FACE: ``EVENT/NAME.txt``, in a folder or a zip.

A file holds a name, the number of detections, and for each ``x y width height score``. As in the
official evaluation a file belongs to the image that its path names. Rows are read as the usual
Python port reads them: whatever the count says, and without the columns after the fifth.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path

import numpy as np

from polynl_mmdet.wider_face.number_table import parse_row, quote, split_lines

_ROW = '"x y width height score"'


def read_predictions(
    path: str | Path, images: Container[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read prediction files; warn, once for each kind, of rows that are odd.

    Args:
        path (str | Path): A folder or a zip in the official layout; folders above ``EVENT`` do not
            matter. A zip is not unpacked to disk.
        images (Container[str], optional): The ``EVENT/NAME`` that are known; files of others are
            not read. Defaults to None: every ``.txt`` file two levels deep is read.

    Returns:
        tuple[dict[str, np.ndarray], list[str]]: For each ``EVENT/NAME``, float64 of shape (n, 5) in
        the order of the file: x, y, width, height in pixels and score. And the files that match
        no image.

    Raises:
        ValueError: At a line that is no detection, two files for one image, a damaged zip; it names
            file and line.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f'{path}: no such folder or zip')
    predictions: dict[str, np.ndarray] = {}
    unmatched: list[str] = []
    odd: dict[str, list[str]] = {}

    def wanted(name: str) -> bool:
        image = _image_of(name)
        known = image is not None and (images is None or image in images)
        if not known:
            unmatched.append(name)
        return known

    for name, data in (_read_folder if path.is_dir() else _read_zip)(path, wanted):
        image = _image_of(name)
        if image in predictions:
            raise ValueError(f'{path}/{name}: a second file for {image}')
        predictions[image] = _parse(f'{path}/{name}', data, odd)
    for what, where in odd.items():
        warnings.warn(f'{where[0]}: the first of {len(where)} {what}', stacklevel=2)
    return predictions, unmatched


def _image_of(name: str) -> str | None:
    """Return ``EVENT/NAME`` of a file's path, None if it cannot be a prediction file."""
    parts = name.replace('\\', '/').split('/')
    if len(parts) < 2 or not parts[-1].endswith('.txt'):
        return None
    return f'{parts[-2]}/{parts[-1][:-4]}'


def _read_folder(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file that is wanted."""
    for file in sorted(path.rglob('*')):
        name = file.relative_to(path).as_posix()
        if file.is_file() and wanted(name):
            yield name, file.read_bytes()


def _read_zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file that is wanted."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                # macOS adds a folder of its own.
                if not name.endswith('/') and not name.startswith('__MACOSX/') and wanted(name):
                    yield name, archive.read(name)
    # RuntimeError: a password, or a compression that Python lacks.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f'{path}: not a whole zip without a password ({error})') from None


def _parse(where: str, data: bytes, odd: dict[str, list[str]]) -> np.ndarray:
    """Parse a prediction file: float64, shape (n, 5). Adds to ``odd`` what is unusual, and where.

    Args:
        where (str): The file.
        data (bytes): Its content.
        odd (dict[str, list[str]]): By what is unusual, the places.
    """
    _, count, *lines = [*split_lines(data.decode('latin-1')), '']
    if not count.strip().isdigit():
        raise ValueError(f'{where}:2: got {quote(count)}, expected the number of detections')
    rows = []
    for number, line in enumerate(lines, 3):
        if not line or line.isspace():
            continue
        row = parse_row(line, f'{where}:{number}', _ROW)
        if len(row) < 5:
            found = f'{len(row)} columns in {quote(line)}'
            raise ValueError(f'{where}:{number}: got {found}, expected {_ROW}')
        if len(row) > 5:
            odd.setdefault('rows with more than 5 columns', []).append(f'{where}:{number}')
        if min(row[2:4]) < 0:
            odd.setdefault('boxes of negative size', []).append(f'{where}:{number}')
        rows.append(row[:5])
    if len(rows) != int(count):
        what = 'files whose count differs from their rows; the rows were read'
        odd.setdefault(what, []).append(f'{where}:2')
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def write_predictions(folder: str | Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Write prediction files, best score first: ``NAME.txt`` for each image.

    Reading official ``EVENT/NAME`` back gives the same numbers to the last bit.

    Args:
        folder (str | Path): Where the event folders go.
        predictions (Mapping[str, np.ndarray]): For each image, usually ``EVENT/NAME``, shape
            (n, 5): x, y, width, height in pixels and score.

    Raises:
        ValueError: If a name points out of the folder.
    """
    for name, rows in predictions.items():
        if {'', '.', '..'} & set(name.split('/')):
            raise ValueError(f'got image name {name!r}, expected EVENT/NAME')
        file = Path(folder, f'{name}.txt')
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = np.asarray(rows, dtype=np.float64).reshape(-1, 5)
        rows = rows[np.argsort(-rows[:, 4], kind='stable')]
        lines = [file.stem, str(len(rows)), *(' '.join(map(repr, row)) for row in rows.tolist())]
        file.write_text('\n'.join(lines) + '\n', encoding='utf-8')
