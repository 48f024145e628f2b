"""What ``torch.load(weights_only=True)`` must know to load mmengine's own checkpoints.

They hold ``HistoryBuffer`` objects, NumPy arrays and scalars, and ``builtins.getattr`` for the
statistics of a HistoryBuffer. ``getattr`` and HistoryBuffer are listed by stand-ins: ``getattr``
itself would reach any attribute of any listed object, and HistoryBuffer's ``__setstate__`` changes
a dictionary that all buffers of the process share.
"""

from __future__ import annotations

import pickle
from typing import Any, Callable

import numpy as np
from mmengine.logging import HistoryBuffer

from ..ops.compat import add_safe_globals

# Functions of numpy.core.multiarray, which NumPy 2 renamed: those that pickles call.
_reconstruct = np.empty(0).__reduce__()[0]
_scalar = np.float64(0).__reduce__()[0]


class _StoredHistoryBuffer(HistoryBuffer):
    """Becomes a HistoryBuffer with the histories of a file and nothing else of its state."""

    def __setstate__(self, state: dict) -> None:
        self.__class__ = HistoryBuffer
        self.__init__(state['_log_history'], state['_count_history'], state['max_length'])


def _history_buffer_getattr(owner: Any, name: str) -> Callable:
    """Return a statistic of HistoryBuffer; refuse everything else."""
    if owner in (HistoryBuffer, _StoredHistoryBuffer) and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'Unsupported GLOBAL getattr({owner!r}, {name!r})')


def _numpy_scalar(dtype: np.dtype, value: bytes) -> np.generic:
    """Rebuild a NumPy scalar; without a value NumPy would allocate any length."""
    return _scalar(dtype, value)


def allow_mmengine_checkpoints() -> None:
    """Add to torch's list of safe globals what mmengine's checkpoints hold."""
    dtypes = {type(np.dtype(code)) for code in np.typecodes['All'] if code != 'O'}
    pairs = [
        (_StoredHistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_buffer_getattr, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
        *((dtype, f'numpy.dtypes.{dtype.__name__}') for dtype in dtypes),
    ]
    for core in ('numpy.core', 'numpy._core'):  # The names that NumPy 1 and 2 write.
        pairs.append((_reconstruct, f'{core}.multiarray._reconstruct'))
        pairs.append((_numpy_scalar, f'{core}.multiarray.scalar'))
    add_safe_globals(pairs)
