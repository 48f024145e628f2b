"""Necks."""

from .merge_fpn import MergeFPN
from .ssh_context import SSHContext, SSHContextModule

__all__ = ['MergeFPN', 'SSHContext', 'SSHContextModule']
