"""The layer without any detector: a plain module, and inside other OpenMMLab backbones."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

from polynl_mmdet.layers import PolyNL
from polynl_mmdet.ops import poly_nl_reference


def test_a_plain_module_learns():
    net = torch.nn.Sequential(torch.nn.Conv1d(4, 8, 1), PolyNL(8), torch.nn.Flatten())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(16, 4, 12)
    before = net[1].w3.clone()
    net(x).square().mean().backward()
    optimizer.step()
    assert not torch.equal(net[1].w3, before)
    layer = net[1]
    y = net[0](x)
    expected = poly_nl_reference(y, layer.w1, layer.w2, layer.w3, layer.alpha, layer.beta)
    torch.testing.assert_close(layer(y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(2, 8, 17), (2, 8, 5, 7), (2, 8, 3, 5, 7)])
def test_points_images_and_videos(shape):
    assert PolyNL(8)(torch.randn(shape)).shape == shape


def test_built_by_name_from_the_root_registry():
    assert isinstance(MODELS.build(dict(type='mmengine.PolyNL', in_channels=8)), PolyNL)


@pytest.mark.parametrize('package', ['mmseg', 'mmaction', 'mmpose'])
def test_resnet_of_another_package(package):
    """Import-only: these are not among this project's requirements."""
    backbones = pytest.importorskip(f'{package}.models.backbones')
    plugin = dict(cfg=dict(type='PolyNL'), stages=(False, True, True, True), position='after_conv2')
    try:
        net = backbones.ResNet(depth=50, plugins=[plugin])
    except TypeError:
        pytest.skip(f"{package}'s ResNet takes no plugins")
    assert sum(isinstance(module, PolyNL) for module in net.modules()) == 13
    assert len(net(torch.randn(1, 3, 64, 64))) >= 1


def test_mmdets_backbone_in_mmpretrain():
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS as PRETRAIN_MODELS

    net = PRETRAIN_MODELS.build(
        dict(
            type='mmdet.SiteResNet',
            depth=18,
            out_indices=(3,),
            sites=[dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)],
        )
    )
    assert any(isinstance(module, PolyNL) for module in net.modules())
