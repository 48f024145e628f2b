"""A BatchNorm in eval mode is folded into the layer's two products."""

from __future__ import annotations

import pytest
import torch

from polynl_mmdet.layers import PolyNL
from polynl_mmdet.ops import poly_nl_reference


def make_layer(norm_cfg, bias):
    torch.manual_seed(0)
    layer = PolyNL(6, norm_cfg=norm_cfg, bias=bias).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 2)
    return layer


def unfolded(layer, x):
    """The layer with its norm called as a module."""
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    weights = (layer.w1, layer.w2, layer.w3)
    y = poly_nl_reference(x, *weights, zero, one, layer.b1, layer.b2, layer.b3)
    return layer.alpha * x + layer.beta * layer.norm(y)


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('kind', ['BN', 'SyncBN'])
def test_eval_mode_equals_the_norm_as_a_module(kind, bias, affine):
    layer = make_layer(dict(type=kind, affine=affine), bias).eval()
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    called = []
    layer.norm.register_forward_hook(lambda *a: called.append(a))
    found = layer(x)
    assert not called
    expected = unfolded(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    # norm_eval trains through the norm's own weights.
    inputs = (x, *layer.parameters())
    grads = torch.autograd.grad(found.square().sum(), inputs)
    exact = torch.autograd.grad(expected.square().sum(), inputs)
    for a, b in zip(grads, exact):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), dict(type='BN', track_running_stats=False)])
def test_batch_statistics_are_not_folded(norm_cfg):
    torch.manual_seed(0)
    layer = PolyNL(6, norm_cfg=norm_cfg).double()
    torch.nn.init.ones_(layer.beta)
    layer.train('track_running_stats' not in norm_cfg)
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    y = layer(x) - x
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6).double(), atol=1e-9, rtol=0)
