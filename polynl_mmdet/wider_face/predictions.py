"""Prediction files in the official layout of WIDER FACE: ``EVENT/NAME.txt``, in a folder or a zip.

A file holds a name, the number of detections, and for each ``x y width height score``. As in the
official evaluation a file belongs to the image that its path names. Rows are read as the usual
Python port reads them: whatever the count says, and without the columns after the fifth.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from polynl_mmdet.wider_face.number_table import parse_row, quote, split_lines

_ROW = '"x y width height score"'


def read_predictions(
    path: str | Path, images: Collection[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read prediction files; warn, once for each kind, of rows that are odd.

    Args:
        path (str | Path): A folder or a zip; folders above ``EVENT`` do not matter.
        images (Collection[str], optional): The ``EVENT/NAME`` that are known; files of others are
            not read. Defaults to None: all are read.

    Returns:
        tuple[dict[str, np.ndarray], list[str]]: For each ``EVENT/NAME``, float64 of shape (n, 5) in
        the order of the file: x, y, width, height in pixels and score. And the files that match
        no image.

    Raises:
        ValueError: At a line that is no detection, two files for one image, a damaged zip.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f'{path}: no such folder or zip')
    predictions: dict[str, np.ndarray] = {}
    unmatched: list[str] = []
    odd: dict[str, list[str]] = defaultdict(list)
    try:
        for name, read in _files(path).items():
            # The last folder and the name without .txt.
            image = '/'.join(name.replace('\\', '/').split('/')[-2:])[:-4]
            if name[-4:] != '.txt' or '/' not in image or (images and image not in images):
                unmatched.append(name)
            elif image in predictions:
                raise ValueError(f'{path}/{name}: a second file for {image}')
            else:
                predictions[image] = _parse(f'{path}/{name}', read(), odd)
    # RuntimeError: a password, or a compression that Python lacks.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f'{path}: not a whole zip without a password ({error})') from None
    for what, where in odd.items():
        warnings.warn(f'{where[0]}: the first of {len(where)} {what}', stacklevel=2)
    return predictions, unmatched


def _files(path: Path) -> dict[str, Callable[[], bytes]]:
    """Return a function that reads each file, by its name below the folder or in the zip."""
    if path.is_dir():
        files = (file for file in sorted(path.rglob('*')) if file.is_file())
        return {file.relative_to(path).as_posix(): file.read_bytes for file in files}
    archive = zipfile.ZipFile(path)
    # macOS adds a folder of its own.
    names = (n for n in archive.namelist() if n[-1:] != '/' and not n.startswith('__MACOSX/'))
    return {name: partial(archive.read, name) for name in names}


def _parse(where: str, data: bytes, odd: dict[str, list[str]]) -> np.ndarray:
    """Parse a prediction file: float64, shape (n, 5). Add to ``odd`` what is unusual, and where."""
    _, count, *lines = [*split_lines(data.decode('latin-1')), '']
    count = parse_row(count, f'{where}:2', 'the number of detections')
    if len(count) != 1:
        raise ValueError(f'{where}:2: got {len(count)} numbers, expected that of the detections')
    rows = []
    for number, line in enumerate(lines, 3):
        if not line or line.isspace():
            continue
        row = parse_row(line, f'{where}:{number}', _ROW)
        if len(row) < 5:
            found = f'{len(row)} columns in {quote(line)}'
            raise ValueError(f'{where}:{number}: got {found}, expected {_ROW}')
        if len(row) > 5:
            odd['rows with more than 5 columns'].append(f'{where}:{number}')
        if min(row[2:4]) < 0:
            odd['boxes of negative size'].append(f'{where}:{number}')
        rows.append(row[:5])
    if len(rows) != count[0]:
        odd['files whose count differs from their rows; the rows were read'].append(f'{where}:2')
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def write_predictions(folder: str | Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Write prediction files, best score first: ``EVENT/NAME.txt`` for each ``EVENT/NAME``.

    The rows (n, 5) are x, y, width, height in pixels and score; read back they are the same to the
    last bit.
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
