"""Pyramid, context modules and the small backbone against their plain descriptions."""

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


def conv_bn(module, x, slope=None):
    """A ConvModule written out; slope None: no activation, 0: ReLU."""
    conv, bn = module.conv, module.bn
    x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, 1, conv.groups)
    x = (x - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + bn.eps).sqrt()
    x = x * bn.weight[:, None, None] + bn.bias[:, None, None]
    return x if slope is None else torch.where(x > 0, x, slope * x)


def nearest(x, size):
    rows = torch.arange(size[0]) * x.shape[2] // size[0]
    columns = torch.arange(size[1]) * x.shape[3] // size[1]
    return x[:, :, rows][:, :, :, columns]


def shaken(module):
    """The module in test mode, its norms as after some training."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.uniform_(-0.5, 0.5)
            child.running_var.uniform_(0.5, 2)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.bias, -0.5, 0.5)
    return module.eval()


@pytest.mark.parametrize(('channels', 'slope'), [(64, 0.1), (256, 0.0)])
@torch.no_grad()
def test_merge_fpn(channels, slope):
    neck = shaken(
        MODELS.build(dict(type='MergeFPN', in_channels=[6, 8, 10], out_channels=channels))
    )
    inputs = [torch.randn(2, 6, 21, 13), torch.randn(2, 8, 11, 7), torch.randn(2, 10, 6, 4)]
    outs = neck(inputs)
    p3, p4, p5 = (conv_bn(m, x, slope) for m, x in zip(neck.lateral_convs, inputs))
    p4 = conv_bn(neck.merge_convs[1], p4 + nearest(p5, (11, 7)), slope)
    p3 = conv_bn(neck.merge_convs[0], p3 + nearest(p4, (21, 13)), slope)
    for out, expected in zip(outs, (p3, p4, p5)):
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(('channels', 'slope'), [(64, 0.1), (128, 0.0)])
@torch.no_grad()
def test_context_module(channels, slope):
    module = shaken(
        MODELS.build(dict(type='SSHContextModule', in_channels=8, out_channels=channels))
    )
    x = torch.randn(2, 8, 9, 12)
    shared = conv_bn(module.conv5x5_1, x, slope)
    branches = [
        conv_bn(module.conv3x3, x),
        conv_bn(module.conv5x5_2, shared),
        conv_bn(module.conv7x7_3, conv_bn(module.conv7x7_2, shared, slope)),
    ]
    assert [b.shape[1] for b in branches] == [channels // 2, channels // 4, channels // 4]
    expected = torch.cat(branches, 1).clamp(min=0)
    torch.testing.assert_close(module(x), expected, atol=1e-4, rtol=1e-4)


def test_context_levels_are_independent():
    neck = SSHContext(8, 16, num_levels=3)
    maps = [torch.randn(1, 8, size, size) for size in (8, 4, 2)]
    outs = neck(maps)
    assert [tuple(out.shape) for out in outs] == [(1, 16, s, s) for s in (8, 4, 2)]
    ids = {id(p) for level in neck.levels for p in level.parameters()}
    assert len(ids) == 3 * len(list(neck.levels[0].parameters()))


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_deformable_convolutions_begin_as_plain_ones(kind):
    """Offsets of zero; DCNv2's modulation begins at sigmoid(0) = 1/2."""
    factor = 0.5 if kind == 'DCNv2' else 1.0
    for cfg, inputs in (
        (dict(type='SSHContextModule', in_channels=8, out_channels=16), torch.randn(1, 8, 9, 7)),
        (
            dict(type='MergeFPN', in_channels=[4, 4], out_channels=8),
            [torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)],
        ),
    ):
        module = MODELS.build(dict(cfg, conv_cfg=dict(type=kind, deform_groups=1)))
        module.init_weights()
        deform = [m for m in module.modules() if hasattr(m, 'conv_offset')]
        assert deform
        for layer in deform:
            x = torch.randn(1, layer.in_channels, 9, 7)
            plain = F.conv2d(x, layer.weight, None, 1, 1)
            torch.testing.assert_close(layer(x), factor * plain, atol=1e-5, rtol=1e-4)
        outs = module(inputs)
        total = sum(out.sum() for out in outs)
        total.backward()
        assert all(p.grad is not None for p in module.parameters())


def test_mobilenet_v1_quarter():
    """Channels and strides of the lighter layout, blocks as written out."""
    backbone = MODELS.build(dict(type='MobileNetV1', widen_factor=0.25))
    shaken(backbone)
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        outs = backbone(x)
        assert [tuple(out.shape) for out in outs] == [
            (1, 64, 9, 13),
            (1, 128, 5, 7),
            (1, 256, 3, 4),
        ]
        stages = [backbone.stage1, backbone.stage2, backbone.stage3]
        assert [len(stage) for stage in stages] == [6, 6, 2]
        x = conv_bn(backbone.stage1[0], x, 0.1)
        for stage, out in zip(stages, outs):
            for block in stage[1:] if stage is stages[0] else stage:
                x = conv_bn(block.depthwise_conv, x, 0.1)
                x = conv_bn(block.pointwise_conv, x, 0.1)
            torch.testing.assert_close(out, x, atol=1e-3, rtol=1e-3)
    widths = [
        (block.pointwise_conv.conv.out_channels, block.depthwise_conv.conv.stride[0])
        for stage in stages
        for block in stage
        if hasattr(block, 'depthwise_conv')
    ]
    assert widths == [
        *[(16, 1), (32, 2), (32, 1), (64, 2), (64, 1)],
        *[(128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1)],
        *[(256, 2), (256, 1)],
    ]


def test_mobilenet_v1_frozen():
    backbone = MobileNetV1(0.25, out_indices=(2,), frozen_stages=1, norm_eval=True)
    backbone.train()
    assert not any(p.requires_grad for p in backbone.stage1.parameters())
    assert all(p.requires_grad for p in backbone.stage2.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    (out,) = backbone(torch.randn(1, 3, 32, 32))
    assert out.shape == (1, 256, 1, 1)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: MobileNetV1(out_indices=(3,)), 'out_indices'),
        (lambda: MobileNetV1(frozen_stages=4), 'frozen_stages'),
        (lambda: MobileNetV1(widen_factor=0.01), 'widen_factor'),
        (lambda: SSHContextModule(8, 18), 'multiple of 4'),
        (lambda: SSHContext(8, 16, 2)([torch.zeros(1, 8, 4, 4)]), '1 maps'),
        (lambda: MergeFPN([4, 8], 16)([torch.zeros(1, 4, 4, 4)]), '1 maps'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
