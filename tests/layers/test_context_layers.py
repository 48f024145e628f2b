"""Each layer agrees with its own equation, starts as the identity and rejects bad input."""

from __future__ import annotations

import layer_references as references
import pytest
import torch
from mmcv.cnn import build_plugin_layer
from mmengine.model import BaseModule
from torch import nn

from polynl_mmdet import layers

LAYERS = {
    'DoubleAttention': (references.double_attention, [dict(), dict(reduction=2)]),
    'EfficientAttention': (references.efficient_attention, [dict(), dict(num_heads=2)]),
    'CompactGeneralizedNonLocal': (
        references.cgnl,
        [dict(groups=2), dict(groups=4, use_scale=True, reduction=1)],
    ),
    'DisentangledNonLocal': (references.dnl, [dict(), dict(temperature=0.3, reduction=4)]),
    'PyramidNonLocal': (references.pnl, [dict(), dict(scales=(1, 3), reduction=1)]),
    'SqueezeExcitation': (references.squeeze_excitation, [dict(), dict(gate_bias=None)]),
    'GlobalResponseNorm': (references.global_response_norm, [dict()]),
    'ReLULinearAttention': (references.relu_linear_attention, [dict(), dict(num_heads=2)]),
    'AgentAttention': (references.agent_attention, [dict(grid=2), dict(grid=3, num_heads=2)]),
    'SpatialBias': (references.spatial_bias, [dict(), dict(num_maps=1, grid=4)]),
}
CASES = [(name, kwargs) for name, (_, all_kwargs) in LAYERS.items() for kwargs in all_kwargs]
FIRST = {name: all_kwargs[0] for name, (_, all_kwargs) in LAYERS.items()}


def build(name, **kwargs):
    return getattr(layers, name)(in_channels=8, **kwargs)


def trained(layer):
    """In double precision, away from the initialisation, with statistics of its own."""
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.data += torch.randn_like(parameter) * 0.5
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return layer


@pytest.mark.parametrize(('name', 'kwargs'), CASES)
@pytest.mark.parametrize('shape', [(2, 8, 5, 7), (1, 8, 12, 3), (3, 8, 1, 1)])
def test_agrees_with_its_equation(name, kwargs, shape):
    layer = trained(build(name, **kwargs))
    if name == 'CompactGeneralizedNonLocal' and shape[2:] == (1, 1):
        shape = (3, 8, 1, 2)  # A group norm over a single entry has no gradient to compare.
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    has_statistics = any(isinstance(module, nn.BatchNorm2d) for module in layer.modules())
    for training in (True, False) if has_statistics else (True,):
        layer.train(training)
        out, expected = layer(x), LAYERS[name][0](layer, x)
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
        grad, inputs = torch.randn_like(expected), (x, *layer.parameters())
        found = torch.autograd.grad(out, inputs, grad)
        exact = torch.autograd.grad(expected, inputs, grad)
        torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


class Parent(BaseModule):
    """Re-initialises what is inside it, as mmdet's ResNet does."""

    def __init__(self, layer):
        norms = dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])
        super().__init__(init_cfg=[dict(type='Kaiming', layer='Conv2d'), norms])
        self.layer = layer


@pytest.mark.parametrize(('name', 'kwargs'), CASES)
@pytest.mark.parametrize('with_parent', [False, True])
def test_starts_as_the_identity_and_every_parameter_learns(name, kwargs, with_parent):
    layer = build(name, **kwargs)
    if with_parent:
        Parent(layer).init_weights()
    x, target = torch.randn(4, 8, 12, 12), torch.randn(4, 8, 12, 12)
    if name != 'SqueezeExcitation':
        assert torch.equal(layer(x), x)
    elif kwargs.get('gate_bias', 3.0) is not None:
        torch.testing.assert_close(layer(x), x * 0.9525741)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        ((layer(x) - target) ** 2).mean().backward()
        optimizer.step()
    assert not [key for key, p in layer.named_parameters() if p.grad.abs().max() == 0]


@pytest.mark.parametrize('name', LAYERS)
def test_half_precision(name):
    torch.manual_seed(3)
    layer = trained(build(name, **FIRST[name])).eval()
    x = torch.randn(1, 8, 24, 24)
    full = layer(x.double()).float()
    layer.float()
    with torch.autocast('cpu', torch.bfloat16):
        half = layer(x)
    assert torch.isfinite(half).all()
    assert (half.float() - full).norm() < 0.05 * full.norm()


@pytest.mark.skipif(torch.__version__ < (2, 2), reason='torch 2.2: float16 on a CPU')
@pytest.mark.parametrize(
    'name', ['CompactGeneralizedNonLocal', 'GlobalResponseNorm', 'ReLULinearAttention']
)
def test_large_activations_stay_finite_in_float16(name):
    """These sum over all positions: far more than float16 holds."""
    layer = trained(build(name, **FIRST[name]))
    x = 30 * torch.randn(1, 8, 40, 40)
    full = layer(x.double()).float()
    half = layer.half()(x.half()).float()
    assert torch.isfinite(half).all()
    assert (half - full).norm() < 0.02 * full.norm()


@pytest.mark.parametrize('name', LAYERS)
def test_is_found_by_name_and_rejects_other_shapes(name):
    key, layer = build_plugin_layer(dict(type=name, **FIRST[name]), postfix='_x', in_channels=8)
    assert key == f'{layer._abbr_}_x'
    for shape in ((1, 7, 4, 4), (1, 8, 4)):
        with pytest.raises(ValueError, match=r'expected \(B, 8, H, W\)') as caught:
            layer(torch.zeros(shape))
        assert str(shape) in str(caught.value)


@pytest.mark.skipif(torch.__version__ < (2, 1), reason='torch 2.1: fused attention on a CPU')
@pytest.mark.parametrize('name', ['DisentangledNonLocal', 'PyramidNonLocal', 'AgentAttention'])
def test_no_matrix_of_pairs_is_stored(name):
    x, kept = torch.randn(1, 8, 48, 48, requires_grad=True), {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        build(name)(x)
    assert sum(kept.values()) < 20 * 4 * x.numel()  # All pairs would take 288 times x.
