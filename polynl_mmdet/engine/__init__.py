"""What surrounds training. Importing it registers the hooks."""

from .checkpoints import load_checkpoint
from .hooks import AtomicCheckpointHook, BadImageHook, NonFiniteStopHook, ResumeStateHook

__all__ = [
    'AtomicCheckpointHook',
    'BadImageHook',
    'NonFiniteStopHook',
    'ResumeStateHook',
    'load_checkpoint',
]
