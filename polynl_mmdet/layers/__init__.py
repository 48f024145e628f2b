"""Plugin layers, registered in mmengine's root MODELS.

Needs mmengine and mmcv, not mmdet: mmseg, mmpretrain and mmaction2 configs find the layers too.
"""

from .poly_nl import PolyNL

__all__ = ['PolyNL']
