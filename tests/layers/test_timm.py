"""Poly-NL in timm's models, without any OpenMMLab package."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polynl_mmdet.layers import PolyNL

try:
    import timm
except (
    ImportError,
    RuntimeError,
) as error:  # torchvision's, which timm needs, beside another torch.
    pytest.skip(f'timm cannot be imported: {error}', allow_module_level=True)


class TokenPolyNL(PolyNL):
    """Poly-NL on tokens (B, N, C)."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def with_poly_nl(model):
    """Before the last residual block of layer3, or before the last block of a ViT."""
    if hasattr(model, 'blocks'):
        layer = TokenPolyNL(model.embed_dim, context_norm=True)
        model.blocks[-1] = nn.Sequential(layer, model.blocks[-1])
    else:
        channels = model.feature_info[3]['num_chs']
        model.layer3[-1] = nn.Sequential(PolyNL(channels, context_norm=True), model.layer3[-1])
    return model


@pytest.mark.parametrize('name', ['resnet18', 'vit_tiny_patch16_224'])
def test_the_layer_starts_as_the_identity_and_learns(name):
    model = timm.create_model(name, num_classes=4).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(with_poly_nl(model)(x), expected)
    model(x).square().sum().backward()
    (layer,) = (m for m in model.modules() if isinstance(m, PolyNL))
    assert layer.w3.grad.abs().max() > 0
