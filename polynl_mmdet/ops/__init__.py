"""Poly-NL in pure PyTorch."""

from .poly_nl import poly_nl
from .reference import poly_nl_reference

__all__ = ['poly_nl', 'poly_nl_reference']
