"""Load a stranger's checkpoint: with ``weights_only``, and one line for what is wrong with it."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from polynl_mmdet.errors import InputError, in_one_line

from .content import check_content

TRUST = 'POLYNL_TRUST_CHECKPOINTS'
ACCEPTED = (
    'accepted: tensors, plain containers, NumPy arrays and what torch.serialization.'
    f'add_safe_globals lists; {TRUST}=1 loads a file that you trust, and runs what is in it'
)
# torch.save compresses nothing; a checkpoint that someone packed again grows by a little.
MOST_GROWTH = 10
_NEGLIGIBLE = 1 << 24


def trusts_checkpoints() -> bool:
    """Return whether the user has switched all checks off, by ``POLYNL_TRUST_CHECKPOINTS=1``."""
    return os.environ.get(TRUST, '').lower() in ('1', 'y', 'yes', 'true')


def load_checkpoint(filename: str | Path, map_location: Any = 'cpu', *, mmap: bool = False) -> Any:
    """Load a local checkpoint as ``torch.load(weights_only=True)`` does.

    What torch accepts as safe loads, classes of ``torch.serialization.add_safe_globals`` included,
    unless mmengine would execute or delete something named in it (see :mod:`.content`) or it is a
    zip that unpacks to far more than itself. Nothing of the process is changed meanwhile.

    With the environment variable ``POLYNL_TRUST_CHECKPOINTS=1`` nothing is checked and
    ``weights_only`` is off: the file may then run any code.

    Args:
        filename (str or Path): The file. '~' is expanded.
        map_location: As for ``torch.load``. Defaults to 'cpu'.
        mmap (bool): Read tensors when they are used, not now. Defaults to False.

    Returns:
        Any: What the file holds.

    Raises:
        InputError: The file is missing, refused, cut off or damaged.
    """
    path = os.path.expanduser(filename)
    with one_line_load_errors(path):
        if trusts_checkpoints():
            return torch.load(path, map_location, weights_only=False, mmap=mmap or None)
        _check_archive(path)
        source: Any = path
        if not zipfile.is_zipfile(path):
            # A bare pickle may state any length, and a file would allocate it to read it.
            source, mmap = io.BytesIO(Path(path).read_bytes()), False
        checkpoint = torch.load(source, map_location, weights_only=True, mmap=mmap or None)
        check_content(path, checkpoint)
    return checkpoint


@contextmanager
def one_line_load_errors(filename: str) -> Iterator[None]:
    """Turn whatever a load raises into an InputError.

    Args:
        filename (str): The checkpoint, for the error.

    Raises:
        InputError: The file is missing, refused, cut off or damaged.
    """
    try:
        yield
    except (InputError, ImportError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            filename, f'refused, {_refusal(filename, error)}; nothing was run', ACCEPTED
        ) from None
    except FileNotFoundError:
        raise InputError(filename, 'no such file', 'accepted: a file of torch.save') from None
    except OSError as error:
        raise InputError(filename, f'cannot be read ({_first_line(error)})') from None
    # torch's readers raise anything at a damaged file: RuntimeError, EOFError, KeyError, ...
    except Exception as error:
        found = f'cut off or damaged ({_first_line(error)})'
        raise InputError(filename, found, 'accepted: a whole checkpoint') from error


def _check_archive(path: str) -> None:
    """Refuse a zip without its index, or one that unpacks to many times its size."""
    with open(path, 'rb') as file:
        begins_as_zip = file.read(2) == b'PK'
    if not zipfile.is_zipfile(path):
        if begins_as_zip:
            raise EOFError('an archive without its index')
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    size = os.path.getsize(path)
    if unpacked > MOST_GROWTH * size + _NEGLIGIBLE:
        found = f'refused, {unpacked} bytes unpacked from a file of {size}'
        raise InputError(path, found, f'accepted: at most {MOST_GROWTH} times its size')


def _refusal(filename: str, error: pickle.UnpicklingError) -> str:
    """Return the names that torch refuses, or what else it says."""
    with suppress(Exception):  # The older format, or a pickle that torch cannot follow.
        names = torch.serialization.get_unsafe_globals_in_checkpoint(filename)
        if names:
            return f'it wants {in_one_line(", ".join(sorted(names)))}'
    message = str(error)
    found = re.search(r'GLOBAL (getattr\(.*\)|\S+)', message)
    if found:
        return f'it wants {in_one_line(found.group(1))}'
    found = re.search(r'WeightsUnpickler error:\s*(.+)', message)
    return _first_line(found.group(1) if found else message)


def _first_line(message: object) -> str:
    """Return the first line of a message, without torch's advice to switch weights_only off."""
    line = str(message).strip().partition('\n')[0].partition('. In PyTorch 2.6')[0]
    return in_one_line(line) or type(message).__name__
