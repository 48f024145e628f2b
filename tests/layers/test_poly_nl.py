"""The plugin layer: agreement with the formula, identity at the start, clear errors."""

from __future__ import annotations

import copy

import pytest
import torch
from mmcv.cnn import build_plugin_layer
from mmengine.registry import MODELS
from torch import nn

from polynl_mmdet.layers import PolyNL
from polynl_mmdet.ops import poly_nl_reference

SHAPES = [(1, 6, 17), (3, 6, 5, 7), (1, 6, 5, 7), (3, 6, 3, 4, 2)]


def trained(layer: PolyNL) -> PolyNL:
    """A double-precision layer away from its initialisation."""
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return layer


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_agrees_with_the_formula_forward_and_backward(shape, bias, layout):
    layer = trained(PolyNL(6, bias=bias))
    x = torch.randn(shape, dtype=torch.float64)
    if layout == 'channels_last':
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    x1, x2 = x.clone(memory_format=torch.preserve_format), x.clone()
    x1.requires_grad_()
    x2.requires_grad_()
    out = layer(x1)
    names = ['w1', 'w2', 'w3', 'alpha', 'beta', *(['b1', 'b2', 'b3'] if bias else [])]
    parameters = [getattr(layer, name) for name in names]
    expected = poly_nl_reference(x2, *parameters)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(expected)
    got = torch.autograd.grad((out * weight).sum(), [x1, *parameters])
    want = torch.autograd.grad((expected * weight).sum(), [x2, *parameters])
    for name, one, other in zip(['x', *names], got, want):
        torch.testing.assert_close(
            one, other, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f'{n}: {m}'
        )


@pytest.mark.parametrize('shape', SHAPES)
def test_is_the_identity_at_initialisation(shape):
    x = torch.randn(shape)
    assert torch.equal(PolyNL(6)(x), x)


def test_gradients_reach_every_parameter_after_the_first_step():
    layer = PolyNL(4, bias=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    x, target = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    for _ in range(2):
        optimizer.zero_grad()
        ((layer(x) - target) ** 2).mean().backward()
        optimizer.step()
    silent = [name for name, p in layer.named_parameters() if p.grad.abs().max() == 0]
    assert not silent


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_norm_stands_on_the_polynomial_branch(mode):
    layer = trained(PolyNL(6, norm_cfg=dict(type='BN')))
    x = torch.randn(3, 6, 5, 7, dtype=torch.float64)
    layer.train()
    layer(x)  # Running statistics away from 0 and 1.
    layer.train(mode == 'train')
    norm = copy.deepcopy(layer.norm)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    branch = norm(poly_nl_reference(x, layer.w1, layer.w2, layer.w3, zero, one))
    expected = layer.alpha * x + layer.beta * branch
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_is_found_by_name_from_any_registry():
    assert MODELS.get('PolyNL') is PolyNL
    name, layer = build_plugin_layer(dict(type='PolyNL'), postfix='_x', in_channels=8)
    assert name == 'poly_nl_x'
    assert isinstance(layer, PolyNL)
    assert layer.in_channels == 8


def test_parent_init_cfg_leaves_it_the_identity():
    from mmengine.model import BaseModule

    class Parent(BaseModule):
        def __init__(self):
            super().__init__(
                init_cfg=[
                    dict(type='Kaiming', layer='Conv2d'),
                    dict(type='Constant', val=0.3, layer=['_BatchNorm', 'GroupNorm']),
                ]
            )
            self.conv = nn.Conv2d(4, 4, 1)
            self.layer = PolyNL(4, norm_cfg=dict(type='BN'))

    parent = Parent()
    parent.init_weights()
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(parent.layer.eval()(x), x)


@pytest.mark.parametrize(
    ('x', 'error', 'words'),
    [
        (torch.zeros(1, 5, 3, 3), ValueError, ['5 channels', 'in_channels=4']),
        (torch.zeros(1, 4, 3, 3, dtype=torch.int64), TypeError, ['int64', 'floating']),
        (torch.zeros(2, 4), ValueError, ['(2, 4)', 'spatial']),
    ],
)
def test_bad_input_is_named(x, error, words):
    with pytest.raises(error) as caught:
        PolyNL(4)(x)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize('channels', [0, -3, 2.5, True, '4'])
def test_bad_in_channels_are_named(channels):
    with pytest.raises(ValueError, match='in_channels'):
        PolyNL(channels)
