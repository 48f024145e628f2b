"""Plug-in layers in plain PyTorch; where mmengine is installed, its root MODELS has their names.

mmdet, mmseg, mmpretrain and mmaction2 find them there.
"""

from .agent_attention import AgentAttention
from .compact_generalized_non_local import CompactGeneralizedNonLocal
from .context_layer import ContextLayer
from .disentangled_non_local import DisentangledNonLocal
from .double_attention import DoubleAttention
from .efficient_attention import EfficientAttention
from .global_response_norm import GlobalResponseNorm
from .poly_nl import PolyNL
from .pyramid_non_local import PyramidNonLocal
from .relu_linear_attention import ReLULinearAttention
from .spatial_bias import SpatialBias, SpatialBiasTerm
from .squeeze_excitation import SqueezeExcitation

LAYERS = (
    AgentAttention,
    CompactGeneralizedNonLocal,
    DisentangledNonLocal,
    DoubleAttention,
    EfficientAttention,
    GlobalResponseNorm,
    PolyNL,
    PyramidNonLocal,
    ReLULinearAttention,
    SpatialBias,
    SqueezeExcitation,
)

try:
    from mmengine.registry import MODELS
except ImportError:  # Plain PyTorch.
    pass
else:
    for layer in LAYERS:
        MODELS.register_module(module=layer)
