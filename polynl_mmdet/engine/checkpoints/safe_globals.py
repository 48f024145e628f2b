"""What ``torch.load(weights_only=True)`` needs to know to load mmengine's own checkpoints.

They hold ``HistoryBuffer`` objects, NumPy arrays and scalars, and ``builtins.getattr`` for the
statistics of a HistoryBuffer. All of these go on torch's list of safe globals, ``getattr`` and
HistoryBuffer by stand-ins: ``getattr`` itself would reach any attribute of any listed object, and
HistoryBuffer's own ``__setstate__`` changes a dictionary that all buffers of the process share.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_multiarray = (getattr(np, '_core', None) or np.core).multiarray
_STATISTICS = ('min', 'max', 'current', 'mean')


class _StoredHistoryBuffer(HistoryBuffer):
    """Becomes a HistoryBuffer, of a file's histories and nothing else of its state."""

    def __setstate__(self, state: dict) -> None:
        logs, counts = state.get('_log_history'), state.get('_count_history')
        length = state.get('max_length')
        arrays = isinstance(logs, np.ndarray) and isinstance(counts, np.ndarray)
        if not arrays or not isinstance(length, int):
            raise pickle.UnpicklingError('HistoryBuffer without its histories')
        self.__class__ = HistoryBuffer
        self.__init__(logs, counts, length)


def _history_buffer_getattr(owner: Any, name: str) -> Callable:
    """Return a statistic of HistoryBuffer; refuse everything else.

    Where the host has put HistoryBuffer itself on the list, torch may take either class.
    """
    if (owner is HistoryBuffer or owner is _StoredHistoryBuffer) and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    shown = getattr(owner, '__name__', type(owner).__name__).replace('_Stored', '')
    raise pickle.UnpicklingError(f'Unsupported GLOBAL getattr({shown}, {name!r})')


def _numpy_scalar(dtype: np.dtype, value: bytes) -> np.generic:
    """Rebuild a NumPy scalar; without a value NumPy would make room for any length."""
    return _multiarray.scalar(dtype, value)


def allow_mmengine_checkpoints() -> None:
    """Add what mmengine's checkpoints hold to torch's list of safe globals.

    All entries are (object, name) pairs: the onedl forks add some of these objects for the time of
    a load and take them off again, and would take off ours.
    """
    dtypes = {type(np.dtype(code)) for code in np.typecodes['All'] if code != 'O'}
    torch.serialization.add_safe_globals(
        [
            (_StoredHistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
            (_history_buffer_getattr, 'builtins.getattr'),
            (np.ndarray, 'numpy.ndarray'),
            (np.dtype, 'numpy.dtype'),
            *((dtype, f'numpy.dtypes.{dtype.__name__}') for dtype in dtypes),
            # NumPy 1 and 2 write different names.
            (_multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
            (_multiarray._reconstruct, 'numpy._core.multiarray._reconstruct'),
            (_numpy_scalar, 'numpy.core.multiarray.scalar'),
            (_numpy_scalar, 'numpy._core.multiarray.scalar'),
        ]
    )
