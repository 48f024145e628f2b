"""What surrounds training: checkpoint safety. Importing it puts the safety in force."""

from .safe_checkpoint import guard_checkpoint_loader, load_checkpoint

guard_checkpoint_loader()

__all__ = ['load_checkpoint']
