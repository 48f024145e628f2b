"""The Poly-NL operator in pure PyTorch: imports nothing of mm*."""

from .naive import poly_nl_reference
from .poly_nl import poly_nl

__all__ = ['poly_nl', 'poly_nl_reference']
