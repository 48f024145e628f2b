"""Spatial Bias in a ResNet: equal to the concatenated form, and a ResNet's weights load."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from torch.nn import functional as F

from polynl_mmdet.layers import SpatialBiasTerm
from polynl_mmdet.models.backbones.spatial_bias_resnet import (
    SpatialBiasBottleneck,
    SpatialBiasResNet,
)

SMALL = dict(depth=50, base_channels=8, stem_channels=8)


def build(kind='SpatialBiasResNet', **kwargs):
    model = MODELS.build(dict(type=kind, **{**SMALL, **kwargs}))
    model.init_weights()
    return model


def disturb(model):
    """Change every initial value, norms' statistics included."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
    return model


def outputs(model, x):
    model.eval()
    with torch.no_grad():
        return model(x)


class ConcatenatedBottleneck(nn.Module):
    """The paper's figure: the maps are concatenated to conv2's output before bn2, ReLU and conv3.

    The maps' first convolution has conv2's stride, as in the authors' first upload.
    """

    def __init__(self, split: SpatialBiasBottleneck) -> None:
        super().__init__()
        planes, stride = split.planes, split.conv2_stride
        term = split.spatial_bias
        maps, grid = term.num_maps, term.grid
        out_channels = split.conv3.out_channels
        self.grid = grid
        self.conv1 = nn.Conv2d(split.inplanes, planes, 1, split.conv1_stride, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.reduce = nn.Conv2d(planes, maps + 2, 1, stride, bias=False)
        self.reduce_bn = nn.BatchNorm2d(maps + 2)
        self.sliding = nn.Conv1d(grid * grid, grid * grid, 3)
        self.bn2 = nn.BatchNorm2d(planes + maps)
        self.conv3 = nn.Conv2d(planes + maps, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = split.downsample
        self.double()
        self.conv1.load_state_dict(split.conv1.state_dict())
        self.bn1.load_state_dict(split.bn1.state_dict())
        self.conv2.load_state_dict(split.conv2.state_dict())
        self.bn3.load_state_dict(split.bn3.state_dict())
        self.reduce.load_state_dict(term.reduce.state_dict())
        self.reduce_bn.load_state_dict(term.reduce_norm.state_dict())
        self.sliding.load_state_dict(term.mix.state_dict())
        for key in ('weight', 'bias', 'running_mean', 'running_var'):
            both = [getattr(norm, key).detach() for norm in (split.bn2, term.maps_norm)]
            getattr(self.bn2, key).data = torch.cat(both)
        both = [split.conv3.weight.detach(), term.conv_out.weight.detach()]
        self.conv3.weight.data = torch.cat(both, dim=1)

    def forward(self, x):
        first = F.relu(self.bn1(self.conv1(x)))
        second = self.conv2(first)
        small = F.relu(self.reduce_bn(self.reduce(first)))
        small = F.adaptive_avg_pool2d(small, (self.grid, self.grid))
        sequence = small.reshape(small.shape[0], small.shape[1], -1).permute(0, 2, 1)
        sequence = self.sliding(sequence).permute(0, 2, 1)
        maps = sequence.reshape(*sequence.shape[:2], self.grid, self.grid)
        maps = F.interpolate(maps, second.shape[2:], mode='bilinear', align_corners=False)
        together = F.relu(self.bn2(torch.cat([second, maps], dim=1)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn3(self.conv3(together)) + shortcut)


def bottleneck(style='pytorch', stride=1, num_maps=3, grid=10, **kwargs):
    planes = 6
    downsample = nn.Sequential(
        nn.Conv2d(10, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
    )
    block = SpatialBiasBottleneck(
        10,
        planes,
        stride=stride,
        style=style,
        downsample=downsample,
        num_maps=num_maps,
        grid=grid,
        **kwargs,
    )
    return disturb(block.double())


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('size', [(24, 17), (7, 5), (2, 2), (30, 3)])
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(stride=2),
        dict(stride=2, style='caffe'),
        dict(num_maps=1, grid=4),
        dict(num_maps=5, grid=3),
    ],
)
def test_equals_the_concatenated_form(kwargs, size, mode):
    block = bottleneck(**kwargs)
    reference = ConcatenatedBottleneck(block)
    block.train(mode == 'train')
    reference.train(mode == 'train')
    x1 = torch.randn(3, 10, *size, dtype=torch.float64, requires_grad=True)
    x2 = x1.detach().clone().requires_grad_()
    out, expected = block(x1), reference(x2)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x1.grad, x2.grad, rtol=1e-10, atol=1e-10)
    term = block.spatial_bias
    for one, other in (
        (term.mix.weight.grad, reference.sliding.weight.grad),
        (term.conv_out.weight.grad, reference.conv3.weight.grad[:, block.planes :]),
        (term.maps_norm.weight.grad, reference.bn2.weight.grad[block.planes :]),
        (block.conv3.weight.grad, reference.conv3.weight.grad[:, : block.planes]),
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('depth', [50, 101])
def test_plain_weights_load_with_only_the_new_keys_missing(depth):
    model, plain = build(depth=depth), build('ResNet', depth=depth)
    found = model.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys
    assert all('.spatial_bias.' in key for key in found.missing_keys)
    x = torch.randn(1, 3, 70, 52)
    for one, other in zip(outputs(model, x), outputs(plain, x)):
        torch.testing.assert_close(one, other)


def test_only_chosen_stages_have_maps():
    model = build(bias_stages=(False, False, True, True), num_maps=2, grid=4)
    terms = {n.split('.')[0] for n, m in model.named_modules() if isinstance(m, SpatialBiasTerm)}
    assert terms == {'layer3', 'layer4'}
    assert model.layer3[0].spatial_bias.mix.weight.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(depth=18), ['backbone.depth', '18', '50, 101 or 152']),
        (dict(depth=7), ['backbone.depth', '7']),
        (dict(depth=50, bias_stages=(True,)), ['backbone.bias_stages', 'got 1', '4 booleans']),
        (dict(depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1)), ['3 booleans']),
    ],
)
def test_bad_arguments_are_named(kwargs, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SpatialBiasResNet(**kwargs)
    assert all(word in str(caught.value) for word in words)
