"""Checkpoints and the hook that checks a run before its first step; importing registers them."""

from .checkpoints import AtomicBackend, check_loaded, force_weights_only, load_checkpoint
from .consistency_hook import ConsistencyHook
from .safe_globals import allow_mmengine_checkpoints

allow_mmengine_checkpoints()
