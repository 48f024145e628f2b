"""Pyramid and context modules against their plain descriptions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from torch import nn

from polynl_mmdet.models import MergeFPN, MobileNetV1, SSHContext, SSHContextModule


@pytest.fixture(autouse=True)
def _registered():
    register_all_modules()


def conv_bn(module, x, slope=1.0):
    """A ConvModule written out; slope 0: ReLU, 1: no activation."""
    conv, bn = module.conv, module.bn
    x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
    x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
    return torch.where(x > 0, x, slope * x)


def nearest(x, size):
    rows = torch.arange(size[0]) * x.shape[2] // size[0]
    columns = torch.arange(size[1]) * x.shape[3] // size[1]
    return x[:, :, rows][:, :, :, columns]


def trained(module):
    """The module in test mode, its norms as after some training."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            for values in (child.running_mean, child.running_var, child.weight.data):
                values.uniform_(0.5, 2)
            child.bias.data.uniform_(-0.5, 0.5)
    return module.eval()


@pytest.mark.parametrize(('channels', 'slope'), [(64, 0.1), (128, 0.0)])
@torch.no_grad()
def test_merge_fpn(channels, slope):
    neck = trained(MergeFPN(in_channels=[6, 8, 10], out_channels=channels))
    inputs = [torch.randn(2, 6, 21, 13), torch.randn(2, 8, 11, 7), torch.randn(2, 10, 6, 4)]
    p3, p4, p5 = (conv_bn(m, x, slope) for m, x in zip(neck.lateral_convs, inputs))
    p4 = conv_bn(neck.merge_convs[1], p4 + nearest(p5, (11, 7)), slope)
    p3 = conv_bn(neck.merge_convs[0], p3 + nearest(p4, (21, 13)), slope)
    torch.testing.assert_close(neck(inputs), (p3, p4, p5), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(('channels', 'slope'), [(64, 0.1), (128, 0.0)])
@torch.no_grad()
def test_context_of_every_level(channels, slope):
    neck = trained(SSHContext(8, channels, num_levels=2))
    inputs, expected = [torch.randn(2, 8, 9, 12), torch.randn(2, 8, 4, 6)], []
    for module, x in zip(neck.levels, inputs):
        shared = conv_bn(module.conv5x5_1, x, slope)
        branches = [
            conv_bn(module.conv3x3, x),
            conv_bn(module.conv5x5_2, shared),
            conv_bn(module.conv7x7_3, conv_bn(module.conv7x7_2, shared, slope)),
        ]
        assert [b.shape[1] for b in branches] == [channels // 2, channels // 4, channels // 4]
        expected.append(torch.cat(branches, 1).clamp(min=0))
    torch.testing.assert_close(neck(inputs), tuple(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(('kind', 'factor'), [('DCN', 1.0), ('DCNv2', 0.5)])
@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='SSHContextModule', in_channels=8, out_channels=16),
        dict(type='MergeFPN', in_channels=[8, 8], out_channels=8),
    ],
)
def test_deformable_convolutions_start_as_plain_ones(cfg, kind, factor):
    """Offsets of zero; DCNv2's modulation starts at sigmoid(0) = 1/2."""
    neck = MODELS.build(dict(cfg, conv_cfg=dict(type=kind, deform_groups=1)))
    neck.init_weights()
    deformable = [m for m in neck.modules() if hasattr(m, 'conv_offset')]
    assert deformable
    for layer in deformable:
        x = torch.randn(1, layer.in_channels, 9, 7)
        plain = F.conv2d(x, layer.weight, None, 1, 1)
        torch.testing.assert_close(layer(x), factor * plain, atol=1e-5, rtol=1e-4)
    x = torch.randn(1, 8, 8, 8)
    outs = neck([x, x[..., :4, :4]] if isinstance(neck, MergeFPN) else x)
    sum(out.sum() for out in outs).backward()
    assert all(p.grad is not None for p in neck.parameters())


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: MobileNetV1(out_indices=(3,)), 'out_indices'),
        (lambda: MobileNetV1(frozen_stages=4), 'frozen_stages'),
        (lambda: SSHContextModule(8, 18), 'multiple of 4'),
        (lambda: SSHContext(8, 16, 2)([torch.zeros(1, 8, 4, 4)]), '1 maps'),
        (lambda: MergeFPN([4, 8], 16)([torch.zeros(1, 4, 4, 4)]), '1 maps'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
