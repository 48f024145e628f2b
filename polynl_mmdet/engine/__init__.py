"""What surrounds training. Importing it registers the hooks and puts checkpoint safety in force."""

from .bad_picture_hook import BadPictureHook
from .checkpoint_hook import AtomicCheckpointHook
from .non_finite_hook import NonFiniteStopHook
from .resume_state_hook import ResumeStateHook
from .safe_checkpoint import guard_checkpoint_loader, load_checkpoint

guard_checkpoint_loader()

__all__ = [
    'AtomicCheckpointHook',
    'BadPictureHook',
    'NonFiniteStopHook',
    'ResumeStateHook',
    'load_checkpoint',
]
