"""Every layer by its name inside mmdet's ResNet-50 and at single sites."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS

import polynl_mmdet  # noqa: F401  Registers the layers and backbones.

LAYERS = {
    'PolyNL': {},
    'CompactGeneralizedNonLocal': dict(groups=4),
    'DisentangledNonLocal': {},
    'DoubleAttention': {},
    'EfficientAttention': {},
    'PyramidNonLocal': {},
    'GlobalResponseNorm': {},
    'ReLULinearAttention': {},
    'AgentAttention': dict(grid=2),
    'SpatialBias': dict(grid=4),
    'SqueezeExcitation': dict(reduction=4),
    # mmcv's own.
    'NonLocal2d': {},
    'GeneralizedAttention': dict(num_heads=4),
}
SMALL = dict(depth=50, base_channels=16, stem_channels=16)
# ResNet's positions, and a site between two blocks.
PLACES = ('after_conv2', 'after_conv3', 'site')


def build(name, place):
    cfg = dict(type=name, **LAYERS[name])
    if place == 'site':
        added = dict(type='SiteResNet', sites=[dict(cfg=cfg, stage='c4', before_block=-1)])
    else:
        plugin = dict(cfg=cfg, stages=(False, False, True, False), position=place)
        added = dict(type='ResNet', plugins=[plugin])
    model = MODELS.build(dict(**SMALL, **added))
    model.init_weights()
    return model


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('name', LAYERS)
def test_a_new_layer_leaves_the_network_as_it_was(name, place):
    model = build(name, place)
    plain = MODELS.build(dict(type='ResNet', **SMALL))
    found = plain.load_state_dict(model.state_dict(), strict=False)
    assert not found.missing_keys
    x = torch.randn(1, 3, 64, 96)
    model.eval()
    plain.eval()
    with torch.no_grad():
        # Blocks whose last norm is 0 would hide whatever stands inside them.
        for one in (model, plain):
            for block in one.layer3:
                if hasattr(block, 'norm3'):
                    block.norm3.weight.fill_(1.0)
        for one, other in zip(model(x), plain(x)):
            if name == 'SqueezeExcitation':  # Its gates start at 0.953.
                assert (one - other).norm() < 0.2 * other.norm()
            else:
                torch.testing.assert_close(one, other)
