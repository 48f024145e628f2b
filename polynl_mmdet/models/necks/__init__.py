"""Necks."""

from .level_context import LevelContext
from .merge_fpn import MergeFPN
from .ssh_context import SSHContext, SSHContextModule
