"""Poly-NL for OpenMMLab models."""

from .version import __version__

__all__ = ['__version__']
