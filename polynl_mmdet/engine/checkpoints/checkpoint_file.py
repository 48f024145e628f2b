"""The container of a checkpoint, looked at before it is loaded: nothing in it may be oversized.

``torch.save`` writes a zip whose entries are stored as they are, one for each tensor, or (before
1.6) pickles with the tensors' bytes behind them. A file that unpacks to more than itself, or whose
tensors ask for more bytes than it holds, is refused before anything is allocated for it.
"""

from __future__ import annotations

import io
import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from polynl_mmdet.engine.checkpoints.pickle_scan import Refused, named_globals, scan

MAGIC = 0x1950A86A20F9469CFC6C  # First pickle of torch.save's older format.
_OLD_PICKLES = 4  # Magic number, protocol, system, content; the storages' keys and bytes follow.


class Damaged(Exception):
    """A file that is cut off, or no checkpoint at all; the message says what was found."""


def check_checkpoint_file(source: str | os.PathLike | BinaryIO) -> None:
    """Check a file's container and what its pickles would ask for.

    Args:
        source (str, PathLike or BinaryIO): A file, or its content; left where it was.

    Raises:
        Refused: It asks for calls, memory or time that no checkpoint needs.
        Damaged: It is no whole checkpoint.
        OSError: It cannot be read.
    """
    if str(source).endswith('.safetensors'):
        return  # torch.load reads these with a library of their own; they hold no pickle.
    with _opened(source) as (stream, size):
        if not size:
            raise Damaged('an empty file')
        head = stream.read(4)
        stream.seek(0)
        try:
            if head == b'PK\x03\x04':
                _check_zip(stream, size)
            else:
                _check_pickles(stream, size)
        except (EOFError, IndexError, KeyError, ValueError, OverflowError, MemoryError) as error:
            raise Damaged(str(error) or type(error).__name__) from None


@contextmanager
def _opened(source: str | os.PathLike | BinaryIO) -> Iterator[tuple[BinaryIO, int]]:
    """The content and its size."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, 'rb') as file:
            yield file, os.fstat(file.fileno()).st_size
        return
    start = source.tell()
    content = source.read()
    source.seek(start)
    yield io.BytesIO(content), len(content)


def _check_zip(stream: BinaryIO, size: int) -> None:
    try:
        with zipfile.ZipFile(stream) as archive:
            records = _records(archive, size)
            if 'data.pkl' not in records:
                raise Damaged(f'a zip without data.pkl: {sorted(records)[:3]}')
            wanted = scan(io.BytesIO(archive.read(records['data.pkl']))).storages
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise Damaged(str(error)) from None
    for key, nbytes in wanted.items():
        entry = records.get(f'data/{key}')
        if entry is None:
            raise Damaged(f'a tensor without its record data/{key}')
        if nbytes > entry.file_size:
            raise Refused(f'{nbytes} bytes of data/{key}, which holds {entry.file_size}')


def _records(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by their names without the folder that all of them share."""
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise Refused(f'{total} bytes unpacked from a file of {size}')
    records: dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for entry in entries:
        folder, _, name = entry.filename.partition('/')
        parts = entry.filename.replace('\\', '/').split('/')
        if not folder or '..' in parts:
            raise Refused(f'an entry named {entry.filename!r}')
        # torch finds names without regard to case: two of them would be a matter of order.
        if entry.filename.lower() in seen:
            raise Refused(f'two entries named {entry.filename!r}')
        seen.add(entry.filename.lower())
        records[name] = entry
    return records


def _check_pickles(stream: BinaryIO, size: int) -> None:
    with _bounded(stream) as content:
        if scan(content).result.value != MAGIC:
            content.seek(0)
            names = sorted(set(named_globals(content)))
            if names:
                raise Refused(', '.join(names))
            raise Damaged('a pickle, but none of torch.save')
        wanted: dict[str, int] = {}
        for _ in range(_OLD_PICKLES - 1):
            wanted.update(scan(content).storages)
    total = sum(wanted.values())
    if total > size:
        raise Refused(f'{total} bytes of tensors, in a file of {size}')


@contextmanager
def _bounded(stream: BinaryIO) -> Iterator[BinaryIO]:
    """A file whose reads allocate no more than there is, whatever length a pickle states."""
    if isinstance(stream, io.BytesIO):
        yield stream
        return
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
