"""The network of the long-range study and the layers that are compared."""

from __future__ import annotations

import copy

import mmcv.cnn.bricks  # noqa: F401  registers mmcv's layers
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

import polynl_mmdet.layers  # noqa: F401  registers ours

# mmcv's layer starts as the identity by a scalar of 0; here by a last matrix of 0, as the others.
ZERO_MATRIX = 'GeneralizedAttention-W0'
CHANNELS = 32
CLASSES = 2
# Every layer is as large as this limit allows.
MAX_PARAMETERS = 5500
LAYERS: dict[str, dict | None] = {
    'none': None,
    'PolyNL': dict(type='PolyNL', context_norm=True),
    'PolyNL-published': dict(type='PolyNL'),
    'NonLocal2d': dict(type='NonLocal2d', reduction=1),
    'NonLocal2d-BN': dict(type='NonLocal2d', reduction=1, norm_cfg=dict(type='BN')),
    'DisentangledNonLocal': dict(type='DisentangledNonLocal', reduction=1),
    'PyramidNonLocal': dict(type='PyramidNonLocal', reduction=2),
    'GeneralizedAttention': dict(type='GeneralizedAttention', num_heads=4),
    ZERO_MATRIX: dict(type='GeneralizedAttention', num_heads=4),
    'EfficientAttention': dict(type='EfficientAttention', reduction=1),
    'DoubleAttention': dict(type='DoubleAttention', reduction=1),
    'CGNL': dict(type='CompactGeneralizedNonLocal', reduction=1, groups=8),
    'ContextBlock': dict(type='ContextBlock', ratio=1.0),
    'SqueezeExcitation': dict(type='SqueezeExcitation', reduction=1, gate_bias=None),
    'SpatialBias': dict(type='SpatialBias', grid=6),
    'ReLULinearAttention': dict(type='ReLULinearAttention', reduction=1),
    'AgentAttention': dict(type='AgentAttention', reduction=1),
    'GlobalResponseNorm': dict(type='GlobalResponseNorm'),
}


def build_layer(name: str) -> nn.Module:
    """nn.Module: the layer of LAYERS for CHANNELS channels; 'none' is the identity."""
    cfg = LAYERS[name]
    if cfg is None:
        return nn.Identity()
    layer = MODELS.build(dict(cfg, in_channels=CHANNELS))
    if name == ZERO_MATRIX:
        nn.init.ones_(layer.gamma)
        nn.init.zeros_(layer.proj_conv.weight)
    return layer


def layer_parameters(name: str) -> int:
    """int: parameters of the layer."""
    return sum(p.numel() for p in build_layer(name).parameters())


def build_trunk() -> nn.Sequential:
    """Two 3 x 3 convolutions on a torus: no border reveals a position."""
    parts: list[nn.Module] = []
    for inputs in (3, CHANNELS):
        conv = nn.Conv2d(inputs, CHANNELS, 3, padding=1, padding_mode='circular', bias=False)
        parts += [conv, nn.BatchNorm2d(CHANNELS), nn.ReLU()]
    return nn.Sequential(*parts)


class Probe(nn.Module):
    """Trunk, a layer of LAYERS, and a pixel-wise head of two 1 x 1 convolutions."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.trunk = build_trunk()
        self.layer = build_layer(layer)
        self.head = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU(), nn.Conv2d(CHANNELS, CLASSES, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, H, W) logits."""
        return self.head(self.layer(self.trunk(images)))


def receptive_field(trunk: nn.Module, size: int = 31) -> int:
    """Side of the square of input pixels, out of ``size``, that one output pixel depends on.

    Measured by the gradient of a copy with positive weights, where nothing cancels.
    """
    positive = copy.deepcopy(trunk).double().eval()
    with torch.no_grad():
        for module in positive.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1.0)
    x = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    centre = positive(x)[0, :, size // 2, size // 2].sum()
    (gradient,) = torch.autograd.grad(centre, x)
    reached = gradient[0].abs().sum(dim=0) > 0
    return max(int(reached.any(dim=axis).sum()) for axis in (0, 1))
