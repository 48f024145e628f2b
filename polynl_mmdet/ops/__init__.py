"""The Poly-NL operator in pure PyTorch: imports nothing of mm*."""

from .cpu_library import product_library, set_product_library
from .naive import poly_nl_reference
from .poly_nl import poly_nl

__all__ = ['poly_nl', 'poly_nl_reference', 'product_library', 'set_product_library']
