"""Prediction files in the official layout of WIDER FACE: ``EVENT/NAME.txt``, in a folder or a zip.

A file holds a name, the number of detections, and for each ``x y width height score``. As in the
official evaluation a file belongs to the image its path names; the name inside is not compared.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path

import numpy as np

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face.number_table import parse_table, quote, split_lines

_COUNT = re.compile(r'[0-9]{1,9}')
_ROW = 'accepted: "x y width height score"'
_LARGEST_FILE = 64 * 2**20
# Bytes unpacked for one of the zip, beside the first MiB: numbers are packed to about a third.
_LARGEST_RATIO = 100
_LARGEST_SMALL = 2**20


def read_predictions(
    path: str | Path, images: Container[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read prediction files.

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
        InputError: At a malformed line, a count that does not match, two files for one image, a
            damaged zip; it names file and line.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(str(path), 'not there', 'accepted: a folder or zip of prediction files')

    def known(name: str) -> bool:
        key = _image_of(name)
        return key is not None and (images is None or key in images)

    predictions: dict[str, np.ndarray] = {}
    unmatched: list[str] = []
    read = _read_folder if path.is_dir() else _read_zip
    for name, data in read(path, known):
        key, where = _image_of(name), f'{path}/{name}'
        if data is None:
            unmatched.append(name)
        elif key in predictions:
            raise InputError(where, f'a second file for {key}', 'accepted: one file an image')
        else:
            predictions[key] = _parse(where, data)
    return predictions, unmatched


def _image_of(name: str) -> str | None:
    """Return ``EVENT/NAME`` of a file's path, None if it cannot be a prediction file."""
    parts = name.replace('\\', '/').split('/')
    if len(parts) < 2 or not parts[-1].endswith('.txt'):
        return None
    return f'{parts[-2]}/{parts[-1][:-4]}'


def _read_folder(path: Path, known: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """Yield the name of each file, and its content if it is of a known image."""
    for file in sorted(path.rglob('*')):
        name = file.relative_to(path).as_posix()
        if file.is_dir():
            continue
        if not known(name):
            yield name, None
        elif file.is_file():
            yield name, file.read_bytes()
        else:  # Reading a pipe would wait for ever.
            raise InputError(str(file), 'not a file', 'accepted: a prediction file')


def _read_zip(path: Path, known: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """Yield as ``_read_folder``; the sizes that the zip states bound what is unpacked."""
    largest_total = _LARGEST_SMALL + _LARGEST_RATIO * path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            total = sum(entry.file_size for entry in entries if known(entry.filename))
            for entry in entries:
                name, where = entry.filename, f'{path}/{entry.filename}'
                if not known(name):
                    yield name, None
                    continue
                if entry.compress_type == zipfile.ZIP_LZMA:
                    # Its decoder makes room for a dictionary of whatever size the entry states.
                    raise InputError(where, 'packed by LZMA', 'accepted: stored or deflated')
                if entry.file_size > _LARGEST_FILE or total > largest_total:
                    raise InputError(
                        where,
                        f'{entry.file_size} bytes unpacked, {total} with the other files',
                        f'accepted: {_LARGEST_FILE} a file, {largest_total} in all for such a zip',
                    )
                yield name, archive.read(entry)
    except InputError:
        raise
    except Exception as error:
        # Damaged zips make Python's reader fail in any way: BadZipFile, struct.error, EOFError,
        # zlib.error, UnicodeDecodeError, ...; RuntimeError if there is a password.
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise InputError(
            str(path), f'not a whole zip ({reason})', 'accepted: a zip without a password'
        ) from None


def _parse(where: str, data: bytes) -> np.ndarray:
    """Parse a prediction file: float64, shape (n, 5)."""
    _, count, *lines = [*split_lines(data.decode('latin-1')), '']
    if not _COUNT.fullmatch(count.strip()):
        raise InputError(f'{where}:2', quote(count), 'accepted: the number of detections')
    rows = parse_table(lines, {5}, lambda row: f'{where}:{row + 3}', _ROW)
    if len(rows) != int(count):
        found = f'announces {int(count)} detections, {len(rows)} follow'
        raise InputError(f'{where}:2', found, 'accepted: as many')
    negative = np.flatnonzero((rows[:, 2:4] < 0).any(axis=1))
    if len(negative):
        used = [number for number, line in enumerate(lines) if line and not line.isspace()]
        number = used[negative[0]]
        found = f'a negative size in {quote(lines[number])}'
        raise InputError(f'{where}:{number + 3}', found, _ROW)
    return rows


def write_predictions(folder: str | Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Write prediction files in the official layout, best score first.

    Reading them back gives the same numbers to the last bit.

    Args:
        folder (str | Path): Where the event folders go.
        predictions (Mapping[str, np.ndarray]): For each ``EVENT/NAME``, shape (n, 5): x, y, width,
            height in pixels and score.

    Raises:
        InputError: If a key is not ``EVENT/NAME``.
    """
    for key, rows in predictions.items():
        parts = key.split('/')
        if len(parts) != 2 or {'', '.', '..'} & set(parts):
            raise InputError(key, 'not the name of an image', 'accepted: EVENT/NAME')
        event = Path(folder, parts[0])
        event.mkdir(parents=True, exist_ok=True)
        rows = np.asarray(rows, dtype=np.float64).reshape(-1, 5)
        rows = rows[np.argsort(-rows[:, 4], kind='stable')]
        lines = [parts[1], str(len(rows)), *(' '.join(map(repr, row)) for row in rows.tolist())]
        (event / f'{parts[1]}.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
