"""Checkpoint files: load, guard, write, and choose the one to resume from.

Importing it adds to torch's list of safe globals what mmengine's own checkpoints hold.
"""

from .atomic_write import BACKEND, PARTIAL, remove_partial_files, write_atomically
from .guard import guard_checkpoints
from .last_checkpoint import POINTER, checkpoint_defect, last_whole_checkpoint
from .load import load_checkpoint
from .safe_globals import allow_mmengine_checkpoints

allow_mmengine_checkpoints()

__all__ = [
    'BACKEND',
    'PARTIAL',
    'POINTER',
    'checkpoint_defect',
    'guard_checkpoints',
    'last_whole_checkpoint',
    'load_checkpoint',
    'remove_partial_files',
    'write_atomically',
]
