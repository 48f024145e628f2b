"""Checkpoints load with ``weights_only`` in force, and nothing in a file is ever run.

From torch 2.6 on, ``torch.load`` refuses the checkpoints that mmengine writes: they hold
``HistoryBuffer`` objects, NumPy scalars and, for HistoryBuffer's statistics, ``builtins.getattr``.
Lifting ``weights_only`` would let any file run code, and so would allowing ``getattr``. Here
HistoryBuffer is rebuilt by a stand-in, a second stand-in answers for ``getattr`` and serves
HistoryBuffer's own statistics alone, and NumPy's plain arrays and scalars are allowed.

Before a file is loaded :mod:`.checkpoint_file` bounds what it asks for, and
afterwards :mod:`.checkpoint_content` looks at what mmengine would act on.

Every loader behind mmengine's ``CheckpointLoader`` is covered (``load_from``, ``--resume``,
``tools/test.py``, ``init_cfg``, local files and URLs), also where it asks for
``weights_only=False`` (``torch.hub``) or would fall back to it (the onedl forks).
"""

from __future__ import annotations

import functools
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from polynl_mmdet.engine.checkpoints.checkpoint_content import check_content
from polynl_mmdet.engine.checkpoints.checkpoint_file import check_checkpoint_file
from polynl_mmdet.errors import InputError, in_one_line

ACCEPTED = "accepted: tensors, plain containers, NumPy arrays and mmengine's HistoryBuffer"
_STATISTICS = ('min', 'max', 'current', 'mean')
_FORCE, _FORBID = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_LOCK = threading.RLock()  # What is patched belongs to the whole process.


class _StoredHistoryBuffer(HistoryBuffer):
    """Rebuilds a HistoryBuffer from a file.

    HistoryBuffer's own ``__setstate__`` enters what the file names into a dictionary that all
    buffers of the process share; this one takes the histories alone.
    """

    def __setstate__(self, state: dict) -> None:
        logs, counts = state.get('_log_history'), state.get('_count_history')
        length = state.get('max_length')
        if not (
            isinstance(logs, np.ndarray)
            and isinstance(counts, np.ndarray)
            and isinstance(length, int)
        ):
            raise pickle.UnpicklingError('HistoryBuffer without its histories')
        self.__class__ = HistoryBuffer
        self.__init__(logs, counts, length)


def _history_buffer_getattr(owner: Any, name: str) -> Any:
    """Stands in for ``builtins.getattr``: HistoryBuffer's statistics and nothing else."""
    if owner is _StoredHistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    shown = getattr(owner, '__name__', type(owner).__name__).replace('_Stored', '')
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr({shown}, {name!r})')


def _safe_globals() -> list:
    """list: what files may name beside torch's own list: objects, or (object, name) pairs."""
    allowed: list = [
        (_StoredHistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_buffer_getattr, 'builtins.getattr'),
        # Files written on Python 2 protocols and by older pickles name the module like this.
        (_history_buffer_getattr, '__builtin__.getattr'),
        np.ndarray,
        np.dtype,
    ]
    multiarray = getattr(np, '_core', None) or np.core
    for function in ('scalar', '_reconstruct'):
        for package in ('numpy.core', 'numpy._core'):
            allowed.append(
                (getattr(multiarray.multiarray, function), f'{package}.multiarray.{function}')
            )
    # A pickled dtype is rebuilt by np.dtype, which gives one of these classes.
    kinds = (np.bool_, *np.sctypeDict.values())
    allowed.extend({type(np.dtype(kind)) for kind in kinds if kind is not np.object_})
    return allowed


@contextmanager
def weights_only_in_force(filename: str) -> Iterator[None]:
    """Inside, every ``torch.load`` is ``weights_only`` and accepts mmengine's checkpoints.

    Each file is first checked for what its pickles call and how large it would become. The old zip
    that ``torch.hub`` would unpack beside its download counts as damaged.

    Args:
        filename (str): The checkpoint, for the error.

    Raises:
        InputError: The file is missing, names anything that could run code, asks for more memory
            than a file of its size needs, or is cut off or damaged.
    """
    try:
        with _LOCK, ExitStack() as changes:
            changes.enter_context(patch.object(torch, 'load', _checked(torch.load)))
            changes.enter_context(patch('torch.hub._is_legacy_zip_format', _never))
            # For a loader that holds a torch.load of its own.
            changes.enter_context(patch.dict(os.environ, {_FORCE: '1'}))
            os.environ.pop(_FORBID, None)  # patch.dict puts it back.
            yield
    except (InputError, ImportError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            filename, f'refused, it wants {_wanted(str(error))}; nothing was run', ACCEPTED
        ) from None
    except FileNotFoundError:
        raise InputError(
            filename, 'no such file', 'accepted: a checkpoint written by torch.save'
        ) from None
    except OSError as error:
        raise InputError(filename, f'cannot be read ({_first_line(error)})') from None
    except Exception as error:
        # Damaged files make torch's readers stumble in any way: RuntimeError, EOFError, KeyError,
        # TypeError, struct.error, ...
        raise InputError(
            filename, f'cut off or damaged ({_first_line(error)})', 'accepted: a whole checkpoint'
        ) from error


def _checked(load: Callable) -> Callable:
    """``torch.load`` that looks at a file before it loads it, always with ``weights_only``."""

    @functools.wraps(load)
    def checked(f, map_location=None, **options):
        check_checkpoint_file(f)
        with _only_stand_ins():
            return load(f, map_location, **{**options, 'weights_only': True})

    return checked


@contextmanager
def _only_stand_ins() -> Iterator[None]:
    """Inside, torch's list of safe globals has ours and none that answers to one of their names.

    The onedl forks put ``getattr`` itself on the list, and torch keeps a set: which of two entries
    for one name it takes is a matter of chance.
    """
    ours = _safe_globals()
    names = {_global_name(entry) for entry in ours}
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    others = [entry for entry in before if _global_name(entry) not in names]
    torch.serialization.add_safe_globals(others + ours)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _global_name(entry: Any) -> str:
    """str: what a file calls an entry of torch's list."""
    if isinstance(entry, tuple):
        return entry[1]
    return f'{entry.__module__}.{entry.__qualname__}'


def _never(filename: str) -> bool:
    return False


def _wanted(message: str) -> str:
    """str: the name that torch's message refuses, else the message."""
    found = re.search(r'GLOBAL (getattr\(.*?\)|\S+)', message)
    if found:
        return in_one_line(found.group(1))
    found = re.search(r'WeightsUnpickler error:\s*(.+)', message)
    return _first_line(found.group(1) if found else message)


def _first_line(message: object) -> str:
    return in_one_line(str(message).strip().partition('\n')[0]) or type(message).__name__


def load_checkpoint(filename: str, map_location: str | torch.device | None = 'cpu') -> Any:
    """``torch.load`` for a stranger's file.

    Args:
        filename (str): A local checkpoint.
        map_location (str or torch.device, optional): As for ``torch.load``. Defaults to 'cpu'.

    Returns:
        Any: What the file holds: tensors, plain containers, arrays, HistoryBuffers.

    Raises:
        InputError: The file is missing, cut off, names or holds anything that could run code, or
            asks for more memory than a file of its size needs.
    """
    with weights_only_in_force(filename):
        checkpoint = torch.load(filename, map_location=map_location, weights_only=True)
    check_content(filename, checkpoint)
    return checkpoint


def guard_checkpoint_loader() -> None:
    """Put :func:`weights_only_in_force` around mmengine's CheckpointLoader, once."""
    load = CheckpointLoader.load_checkpoint.__func__
    if getattr(load, '_polynl_guard', False):
        return

    @functools.wraps(load)
    def guarded(cls, filename, map_location=None, logger='current'):
        with weights_only_in_force(filename):
            checkpoint = load(cls, filename, map_location, logger)
        check_content(filename, checkpoint)
        return checkpoint

    guarded._polynl_guard = True
    CheckpointLoader.load_checkpoint = classmethod(guarded)
