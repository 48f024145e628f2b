"""Prediction files in the official layout of WIDER FACE: ``EVENT/NAME.txt``, in a folder or a zip.

A file holds a name, the number of detections, and for each ``x y width height score``. As in the
official evaluation a file belongs to the image its path names; the name inside is not compared.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from polynl_mmdet.errors import InputError, in_one_line
from polynl_mmdet.wider_face.number_table import TableError, parse_table, quote

_ACCEPTED = 'accepted: "x y width height score"'
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
        tuple[dict[str, np.ndarray], list[str]]: For each ``EVENT/NAME``, float64 of shape (n, 5):
        x, y, width, height in pixels and score. And the files that match no image.

    Raises:
        InputError: At a malformed line, a count that does not match, two files for one image, a
            damaged zip; it names file and line.
    """
    path = Path(path)
    if path.is_dir():
        files = _files_of_folder(path)
    elif path.is_file():
        files = _files_of_zip(path)
    else:
        raise InputError(
            str(path),
            'not there' if not path.exists() else 'neither a folder nor a file',
            'accepted: a folder or zip of prediction files',
        )
    keys: dict[str, str] = {}
    headless: list[bytes] = []
    counts: list[int] = []
    unmatched: list[str] = []
    for name, read in files:
        key = _image_of(name)
        if key is None or (images is not None and key not in images):
            unmatched.append(name)
            continue
        where = f'{path}/{name}'
        if key in keys:
            raise InputError(where, f'a second file for {key}, after {keys[key]}')
        try:
            body, count = _split_header(where, read())
        except OSError as error:
            raise InputError(where, error.strerror or str(error), 'accepted: a file') from None
        keys[key] = where
        headless.append(body)
        counts.append(count)
    rows = _parse(list(keys.values()), headless, counts)
    return dict(zip(keys, np.split(rows, np.cumsum(counts)[:-1]))) if keys else {}, unmatched


def _image_of(name: str) -> str | None:
    """``EVENT/NAME`` of a file's path, None if it cannot be a prediction file."""
    parts = name.replace('\\', '/').split('/')
    if len(parts) < 2 or not parts[-1].endswith('.txt'):
        return None
    return f'{parts[-2]}/{parts[-1][:-4]}'


def _files_of_folder(path: Path) -> Iterator[tuple]:
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            yield file.relative_to(path).as_posix(), partial(_read_file, file)


def _read_file(file: Path) -> bytes:
    if not file.is_file():
        # Reading a pipe would wait for ever.
        raise InputError(str(file), 'not a file', 'accepted: a prediction file')
    return file.read_bytes()


def _files_of_zip(path: Path) -> Iterator[tuple]:
    """Yield names and functions that read; the sizes the zip states bound what is unpacked."""
    with _one_line_zip_errors(path), zipfile.ZipFile(path) as archive:
        total = 0
        largest_total = _LARGEST_SMALL + _LARGEST_RATIO * path.stat().st_size

        def read(entry: zipfile.ZipInfo) -> bytes:
            nonlocal total
            if entry.compress_type == zipfile.ZIP_LZMA:
                # Its decoder makes room for a dictionary of whatever size the entry states.
                raise InputError(
                    f'{path}/{entry.filename}', 'packed by LZMA', 'accepted: stored or deflated'
                )
            total += entry.file_size
            if entry.file_size > _LARGEST_FILE or total > largest_total:
                raise InputError(
                    f'{path}/{entry.filename}',
                    f'{entry.file_size} bytes unpacked, {total} with those before it',
                    f'accepted: {_LARGEST_FILE} a file, {largest_total} in all for such a zip',
                )
            with _one_line_zip_errors(path):
                return archive.read(entry)

        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, partial(read, entry)


@contextmanager
def _one_line_zip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        # An entry with a password, or packed by a method this Python cannot unpack.
        raise InputError(str(path), str(error), 'accepted: a plain zip') from None
    except Exception as error:
        # Damaged zips make Python's reader stumble in any way: BadZipFile, struct.error, EOFError,
        # zlib.error, LZMAError, UnicodeDecodeError, ...
        reason = in_one_line(error) or type(error).__name__
        raise InputError(str(path), f'not a whole zip ({reason})', 'accepted: a zip') from None


def _split_header(where: str, data: bytes) -> tuple[bytes, int]:
    """The lines after name and count, and the count."""
    head = data.split(b'\n', 2)
    count = head[1].strip() if len(head) > 1 else b''
    if not count.isdigit() or len(count) > 9:
        raise InputError(f'{where}:2', quote(count), 'accepted: the number of detections')
    body = head[2].rstrip() if len(head) > 2 else b''
    # Blank lines do not count. Where there are any it is seen once the rows are there.
    if (body.count(b'\n') + 1 if body else 0) != int(count):
        _check_count(where, body, int(count))
    return body, int(count)


def _check_count(where: str, body: bytes, count: int) -> None:
    lines = sum(not line.isspace() for line in body.split(b'\n') if line)
    if lines != count:
        raise InputError(
            f'{where}:2', f'announces {count} detections, {lines} follow', 'accepted: as many'
        )


def _parse(wheres: list[str], bodies: list[bytes], counts: list[int]) -> np.ndarray:
    """The rows of all files: float64, shape (n, 5)."""
    try:
        rows = parse_table(b'\n'.join([body for body in bodies if body]), 5)
    except TableError:
        rows = None
    if rows is not None and len(rows) == sum(counts) and not (rows[:, 2:4] < 0).any():
        return rows.reshape(-1, 5)
    for where, body, count in zip(wheres, bodies, counts):
        _raise_at_bad_line(where, body)
        _check_count(where, body, count)
    raise AssertionError('a table that is wrong as a whole is right in its parts')


def _raise_at_bad_line(where: str, body: bytes) -> None:
    for number, line in enumerate(body.split(b'\n')):
        try:
            row = parse_table(line, 5)
        except TableError as error:
            raise InputError(f'{where}:{number + 3}', error.found, _ACCEPTED) from None
        if (row[:, 2:4] < 0).any():
            raise InputError(
                f'{where}:{number + 3}', f'a negative size in {quote(line)}', _ACCEPTED
            )


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
