"""Plugin layers, registered in mmengine's root MODELS.

Needs mmengine and mmcv, not mmdet: mmseg, mmpretrain and mmaction2 configs find the layers too.
"""

from .compact_generalized_non_local import CompactGeneralizedNonLocal
from .context_layer import ContextLayer
from .disentangled_non_local import DisentangledNonLocal
from .double_attention import DoubleAttention
from .efficient_attention import EfficientAttention
from .poly_nl import PolyNL
from .pyramid_non_local import PyramidNonLocal
from .spatial_bias import SpatialBias, SpatialBiasTerm
from .squeeze_excitation import SqueezeExcitation

__all__ = [
    'CompactGeneralizedNonLocal',
    'ContextLayer',
    'DisentangledNonLocal',
    'DoubleAttention',
    'EfficientAttention',
    'PolyNL',
    'PyramidNonLocal',
    'SpatialBias',
    'SpatialBiasTerm',
    'SqueezeExcitation',
]
