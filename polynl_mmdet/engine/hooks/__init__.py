"""Hooks, registered in mmengine's HOOKS."""

from .bad_image_hook import BadImageHook
from .checkpoint_hook import AtomicCheckpointHook
from .non_finite_hook import NonFiniteStopHook
from .resume_state_hook import ResumeStateHook

__all__ = ['AtomicCheckpointHook', 'BadImageHook', 'NonFiniteStopHook', 'ResumeStateHook']
