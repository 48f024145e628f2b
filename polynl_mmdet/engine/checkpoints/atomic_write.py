"""Write files that are never seen half-written, whenever the process or the machine stops.

A file is written under a temporary name in its own folder, flushed to the disk and renamed; the
rename is flushed too. A reader sees the old file or the new one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from polynl_mmdet.errors import InputError

PARTIAL = '.partial'
BACKEND = 'atomic_local'


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file under a temporary name, and rename it once it is on the disk.

    Args:
        path (str or Path): The file. Its folder is made.
        content (bytes): What it is to hold.

    Raises:
        InputError: It cannot be written, for example because the disk is full. The temporary file
            is removed, and a file that was there before is as it was.
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _flush_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free if os.path.isdir(path.parent) else 0
        sizes = f'{len(content) / 1e6:.1f} MB wanted, {free / 1e6:.1f} MB free'
        raise InputError(
            str(path),
            f'could not be written ({error.strerror or error}): {sizes}',
            'the files before it are whole: make room and go on with --resume',
        ) from error


def remove_partial_files(folder: str | Path) -> list[str]:
    """Remove the temporary files of runs that were killed while they wrote.

    Args:
        folder (str or Path): Where they wrote. Need not exist.

    Returns:
        list[str]: The names of the files removed, sorted.
    """
    leftovers = sorted(Path(folder).glob(f'*{PARTIAL}'))
    for file in leftovers:
        file.unlink(missing_ok=True)
    return [file.name for file in leftovers]


@register_backend(BACKEND, force=True)
class AtomicLocalBackend(LocalBackend):
    """mmengine's backend for local files, whose writes are :func:`write_atomically`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file; see :func:`write_atomically`."""
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file; see :func:`write_atomically`."""
        write_atomically(filepath, obj.encode(encoding))


def _flush_folder(folder: Path) -> None:
    # Elsewhere a folder cannot be opened, and the rename is flushed with the file system's log.
    if os.name == 'posix':
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
