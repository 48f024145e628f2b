"""PolyNL: agreement with the formula, identity at the start, clear errors."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from polynl_mmdet.layers import PolyNL
from polynl_mmdet.ops import poly_nl_reference


def trained(layer: PolyNL) -> PolyNL:
    """Move a layer away from its initialisation."""
    for parameter in layer.parameters():
        parameter.data += torch.randn_like(parameter) * 0.3
    return layer


@pytest.mark.parametrize('shape', [(1, 6, 17), (3, 6, 5, 7), (3, 6, 3, 4, 2)])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('context_norm', [False, True])
def test_agrees_with_the_formula_forward_and_backward(shape, bias, context_norm):
    layer = trained(PolyNL(6, bias=bias, context_norm=context_norm).double())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weights = (layer.w1, layer.w2, layer.w3, layer.alpha, layer.beta, layer.b1, layer.b2, layer.b3)
    out, expected = layer(x), poly_nl_reference(x, *weights, context_norm=layer.context_norm)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    grad, inputs = torch.randn_like(expected), (x, *layer.parameters())
    found = torch.autograd.grad(out, inputs, grad)
    exact = torch.autograd.grad(expected, inputs, grad)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


class Parent(BaseModule):
    """Re-initialises what is inside it, as mmdet's ResNet does."""

    def __init__(self, layer):
        norms = dict(type='Constant', val=0.3, layer=['_BatchNorm', 'LayerNorm'])
        super().__init__(init_cfg=[dict(type='Kaiming', layer=['Conv2d', 'Linear']), norms])
        self.layer = layer


@pytest.mark.parametrize('with_parent', [False, True])
@pytest.mark.parametrize('context_norm', [False, True])
def test_starts_as_the_identity_and_every_parameter_learns(context_norm, with_parent):
    layer = PolyNL(6, bias=True, context_norm=context_norm)
    if with_parent:
        Parent(layer).init_weights()
    x, target = torch.randn(2, 6, 5, 5), torch.randn(2, 6, 5, 5)
    assert torch.equal(layer(x), x)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        ((layer(x) - target) ** 2).mean().backward()
        if step == 0:
            assert layer.w3.grad.abs().min() > 0, 'a whole matrix learns from the first step on'
        optimizer.step()
    assert not [name for name, p in layer.named_parameters() if p.grad.abs().max() == 0]


def test_a_file_without_a_norm_loads_and_computes_the_published_formula():
    """The keys of the published form are those of every version."""
    state = {f'w{i}': torch.randn(6, 6) / 3 for i in (1, 2, 3)}
    state.update(alpha=torch.tensor([0.9]), beta=torch.tensor([0.3]))
    layer = PolyNL(6)
    layer.load_state_dict(state, strict=True)
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(layer(x), poly_nl_reference(x, **state))
    with pytest.raises(RuntimeError, match=r'context_norm\.weight'):
        PolyNL(6, context_norm=True).load_state_dict(state, strict=True)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_a_layer_in_16_bits_normalizes_in_float32(dtype):
    layer = trained(PolyNL(6, context_norm=True)).to(dtype)
    x = (torch.randn(2, 6, 5, 7) * 300).to(dtype)  # contexts leave the range of float16
    out = layer(x)
    assert out.dtype == dtype
    out.sum().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in layer.parameters())
    wide = layer.double()
    tolerance = 1e-12 if dtype == torch.float64 else 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), wide(x.double()), rtol=tolerance, atol=tolerance * 300)


@pytest.mark.skipif(torch.__version__ < (2, 1), reason="torch 2.0's compiler breaks the graph")
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_compiles_as_one_graph(dtype):
    torch._dynamo.reset()
    layer = PolyNL(8, context_norm=True)
    nn.init.normal_(layer.w3)
    layer.to(dtype)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 8, 5, 7).to(dtype).requires_grad_()
    out, expected = compiled(x), layer(x)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=10 * tolerance)
    inputs = (x, *layer.parameters())
    found = torch.autograd.grad(out.square().mean(), inputs)
    exact = torch.autograd.grad(expected.square().mean(), inputs)
    for one, other in zip(found, exact):
        assert (one - other).float().norm() <= 2 * tolerance * other.float().norm()


@pytest.mark.parametrize(
    ('x', 'error', 'message'),
    [
        (torch.zeros(1, 5, 3, 3), ValueError, r'got input \(1, 5, 3, 3\), expected \(B, 4, \*sp'),
        (torch.zeros(1, 4, 3, 3, dtype=torch.int64), TypeError, 'int64, expected floating'),
        (torch.zeros(2, 4), ValueError, r'\(2, 4\), expected \(B, 4, \*spatial\)'),
    ],
)
def test_errors(x, error, message):
    with pytest.raises(error, match=message):
        PolyNL(4)(x)
    with pytest.raises(ValueError, match='expected True or False'):
        PolyNL(4, context_norm=dict(type='BN'))
