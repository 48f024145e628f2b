"""Spatial Bias in a ResNet: equal to the concatenated form, and a ResNet's weights load."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from torch.nn import functional as F

from polynl_mmdet.layers import SpatialBiasTerm
from polynl_mmdet.models.backbones.spatial_bias_resnet import SpatialBiasBottleneck


def concatenated(block, x):
    """The paper's figure: the maps are concatenated to conv2's output before bn2, ReLU and conv3.

    The maps' first convolution has conv2's stride, as in the authors' first upload.
    """

    def batch_norm(x, *norms):
        mean, var, weight, bias = (
            torch.cat([getattr(norm, key) for norm in norms])
            for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return F.batch_norm(x, mean.clone(), var.clone(), weight, bias, norms[0].training)

    term = block.spatial_bias
    first = batch_norm(block.conv1(x), block.bn1).relu()
    second = block.conv2(first)
    small = batch_norm(
        F.conv2d(first, term.reduce.weight, stride=block.conv2_stride), term.reduce_norm
    ).relu()
    small = F.adaptive_avg_pool2d(small, (term.grid, term.grid))
    sequence = small.reshape(*small.shape[:2], -1).permute(0, 2, 1)
    sequence = F.conv1d(sequence, term.mix.weight, term.mix.bias).permute(0, 2, 1)
    maps = sequence.reshape(len(x), term.num_maps, term.grid, term.grid)
    maps = F.interpolate(maps, second.shape[2:], mode='bilinear', align_corners=False)
    together = batch_norm(torch.cat([second, maps], dim=1), block.bn2, term.maps_norm).relu()
    weight = torch.cat([block.conv3.weight, term.conv_out.weight], dim=1)
    return (batch_norm(F.conv2d(together, weight), block.bn3) + block.downsample(x)).relu()


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('size', [(24, 17), (2, 2)])
@pytest.mark.parametrize(
    'kwargs',
    [dict(), dict(stride=2, num_maps=1, grid=4), dict(stride=2, style='caffe')],
)
def test_equals_the_concatenated_form(kwargs, size, mode):
    shortcut = nn.Conv2d(10, 24, 1, kwargs.get('stride', 1), bias=False)
    downsample = nn.Sequential(shortcut, nn.BatchNorm2d(24))
    block = SpatialBiasBottleneck(10, 6, downsample=downsample, **kwargs).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        for name, buffer in block.named_buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5 if 'var' in name else -0.3, 2)
    block.train(mode == 'train')
    x = torch.randn(3, 10, *size, dtype=torch.float64, requires_grad=True)
    expected, out = concatenated(block, x), block(x)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    grad, inputs = torch.randn_like(out), (x, *block.parameters())
    found = torch.autograd.grad(out, inputs, grad)
    exact = torch.autograd.grad(expected, inputs, grad)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)


def test_plain_weights_load_and_only_chosen_stages_have_maps():
    small = dict(depth=50, base_channels=8, stem_channels=8)
    plain = MODELS.build(dict(type='ResNet', **small))
    model = MODELS.build(
        dict(type='SpatialBiasResNet', bias_stages=(False, False, True, True), grid=4, **small)
    )
    for part in (plain, model):
        part.init_weights()
        part.eval()
    terms = {n.split('.')[0] for n, m in model.named_modules() if isinstance(m, SpatialBiasTerm)}
    assert terms == {'layer3', 'layer4'}
    assert model.layer3[0].spatial_bias.mix.weight.shape == (16, 16, 3)
    found = model.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys
    assert all('.spatial_bias.' in key for key in found.missing_keys)
    x = torch.randn(1, 3, 70, 52)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(depth=18), 'depth: got 18, expected 50, 101 or 152'),
        (dict(depth=50, bias_stages=(True,)), 'bias_stages: got 1 values, expected 4 booleans'),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='SpatialBiasResNet', **kwargs))
