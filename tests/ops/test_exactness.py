"""Every method and layout against the formula as it reads, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from poly_nl_cases import (
    LAYOUTS,
    METHODS,
    errors,
    make_input,
    make_params,
    relative_error,
    with_norm,
)

from polynl_mmdet.ops import poly_nl, poly_nl_reference

TOLERANCE = 1e-12
pytestmark = pytest.mark.usefixtures('device')


def assert_agrees(x, params, method, grad=None):
    grad = torch.randn(x.shape, dtype=x.dtype) if grad is None else grad
    for name, error in errors(method, x, params, grad).items():
        assert error <= TOLERANCE, name


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 40),
    height=st.integers(1, 12),
    width=st.integers(1, 40),
    layout=st.sampled_from(LAYOUTS),
    biases=st.tuples(*[st.booleans()] * 3),
    method=st.sampled_from(METHODS),
    norm=st.booleans(),
    seed=st.integers(0, 99),
)
def test_small_shapes(batch, channels, height, width, layout, biases, method, norm, seed):
    # Two numbers come out of a norm as -1 and 1, whatever they were: their gradient is rounding.
    params = make_params(channels, True, norm and channels > 2, seed=seed)
    params[5:8] = [p if wanted else None for p, wanted in zip(params[5:8], biases)]
    x = make_input((batch, channels, height, width), layout, seed=seed)
    assert_agrees(x, params, method)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize(('channels', 'norm'), [(70, False), (130, True), (256, False)])
def test_sliced_products(channels, norm, layout):
    # Large enough for blocks and splits, with remainders in both.
    x = make_input((2, channels, 43, 61), layout)
    assert_agrees(x, make_params(channels, True, norm), 'moments')


@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('shape', [(2, 5, 7), (2, 3, 2, 3, 4), (1, 4, 2, 1, 3, 2)])
def test_other_numbers_of_spatial_axes(shape, method, norm):
    x = torch.randn(shape, dtype=torch.float64)
    for layout in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
        assert_agrees(layout.requires_grad_(), make_params(shape[1], True, norm), method)


@pytest.mark.parametrize('method', METHODS[:2])
@pytest.mark.parametrize('of_x', LAYOUTS[:4])
def test_gradient_in_another_layout(of_x, method):
    for of_grad in LAYOUTS:
        grad = make_input((2, 6, 5, 7), of_grad, seed=5).detach()
        assert_agrees(make_input((2, 6, 5, 7), of_x), make_params(6, True, True), method, grad)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_result_and_gradient_lie_in_memory_as_the_input(layout, method):
    x = make_input((2, 6, 5, 7), layout)
    z = poly_nl(x, *make_params(6), method=method)
    (grad,) = torch.autograd.grad(z.square().sum(), x)
    assert z.stride() == grad.stride() == x.stride()
    # The gradient of a plain sum has no memory of its own.
    assert_agrees(x, make_params(6), method, torch.ones((), dtype=x.dtype).expand(x.shape))


@pytest.mark.parametrize('method', METHODS[:2])
@pytest.mark.parametrize('layout', LAYOUTS[:4])
@pytest.mark.parametrize('shape', [(2, 5, 7), (2, 5, 4, 6), (1, 3, 2, 3, 4)])
def test_changed_in_place(method, layout, shape):
    """As a bottleneck's ``out += identity`` does."""
    x = make_input((*shape[:2], shape[2], math.prod(shape[3:])), layout).detach()
    x = x.reshape(shape) if len(shape) == 3 else x.unflatten(3, shape[3:])
    leaves = [x.requires_grad_(), *make_params(shape[1])[:5]]
    out = poly_nl(*leaves, method=method)
    out += x
    out.relu_()
    expected = torch.relu(poly_nl_reference(*leaves) + x)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(out.square().sum(), leaves)
    exact = torch.autograd.grad(expected.square().sum(), leaves)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
@pytest.mark.parametrize(
    ('shape', 'norm'),
    [
        ((0, 4, 3, 3), False),
        ((0, 4, 3, 3), True),
        ((2, 4, 0, 3), False),
        ((2, 4, 0, 3), True),
        ((2, 0, 3, 3), False),
    ],
)
def test_empty_input_gives_empty_result_and_zero_gradients(shape, norm, dtype, method):
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    params = make_params(shape[1] or 1, norm=norm)
    if shape[1] == 0:
        params[:3] = [torch.zeros(0, 0, dtype=torch.float64, requires_grad=True)] * 3
    z = with_norm(poly_nl, method=method)(x, *params)
    assert z.shape == x.shape
    assert z.dtype == dtype
    z.sum().backward()
    assert all((p.grad == 0).all() for p in params if p is not None)


@pytest.mark.parametrize('method', METHODS)
def test_only_the_gradients_asked_for(method):
    x = make_input((2, 4, 5, 6))
    for index in range(11):
        inputs = [x.detach(), *(p.detach() for p in make_params(4, True, True))]
        inputs[index].requires_grad_()
        out = with_norm(poly_nl, method=method)(*inputs)
        expected = with_norm(poly_nl_reference)(*inputs)
        (found,) = torch.autograd.grad(out.square().sum(), inputs[index])
        (grad,) = torch.autograd.grad(expected.square().sum(), inputs[index])
        assert relative_error(found, grad) <= TOLERANCE


@pytest.mark.parametrize('method', METHODS)
def test_beta_zero_is_the_identity_scaled(method):
    x = make_input((2, 4, 5, 6)).detach()
    params = make_params(4)
    params[3], params[4] = torch.tensor([3.0]).double(), torch.zeros(1).double()
    assert torch.equal(poly_nl(x, *params, method=method), 3 * x)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(('bias', 'norm'), [(False, False), (True, False), (True, True)])
def test_gradcheck_and_gradgradcheck(method, bias, norm):
    inputs = (make_input((2, 3, 2, 4)), *make_params(3, bias, norm))
    function = with_norm(poly_nl, method=method)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize('method', METHODS)
def test_second_gradients_of_shared_weights(method):
    w, _, _, alpha, beta, *_ = make_params(3)
    assert torch.autograd.gradgradcheck(
        lambda x, w: poly_nl(x, w, w, w, alpha, beta, method=method), (make_input((1, 3, 2, 4)), w)
    )


@pytest.mark.parametrize('method', METHODS)
def test_a_norm_over_the_batch_is_called_once(method):
    x, params = make_input((3, 4, 5, 6)), make_params(4, True)
    norms = [torch.nn.BatchNorm1d(4).double() for _ in range(2)]
    for norm in norms:
        norm.weight.data = torch.tensor([0.5, 1.0, 2.0, -1.0]).double()
    out = poly_nl(x, *params, context_norm=norms[0], method=method)
    expected = poly_nl_reference(x, *params, context_norm=norms[1])
    found = torch.autograd.grad(out.square().sum(), (x, *params, *norms[0].parameters()))
    exact = torch.autograd.grad(expected.square().sum(), (x, *params, *norms[1].parameters()))
    torch.testing.assert_close((out, *found), (expected, *exact), rtol=1e-10, atol=1e-10)
    # The statistics tell how often, and of which context.
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict(), rtol=1e-12, atol=1e-12)
