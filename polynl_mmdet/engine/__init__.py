"""What surrounds training. Importing it registers the hooks and puts checkpoint safety in force."""

from .checkpoints.safe_checkpoint import guard_checkpoint_loader, load_checkpoint
from .hooks import AtomicCheckpointHook, BadImageHook, NonFiniteStopHook, ResumeStateHook

guard_checkpoint_loader()

__all__ = [
    'AtomicCheckpointHook',
    'BadImageHook',
    'NonFiniteStopHook',
    'ResumeStateHook',
    'load_checkpoint',
]
