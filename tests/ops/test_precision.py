"""16-bit inputs, autocast and float32 against a float64 reference."""

from __future__ import annotations

import pytest
import torch
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

HALF = (torch.float16, torch.bfloat16)
pytestmark = pytest.mark.usefixtures('device')
SCALARS = [(1.0, 0.1), (1.0, 1.0), (0.0, 1.0), (0.7, 0.3), (1.0, 0.001)]


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'cropped'])
@pytest.mark.parametrize('scalars', SCALARS)
@pytest.mark.parametrize('shape', [(2, 16, 24, 30), (1, 64, 40, 41), (1, 96, 14, 15)])
@pytest.mark.parametrize('dtype', [*HALF, torch.float32])
def test_no_worse_than_projections(dtype, shape, scalars, layout):
    x = make_input(shape, layout, dtype)
    params = make_params(shape[1], dtype=torch.float32)
    params[3:5] = [torch.tensor(scalar).requires_grad_() for scalar in scalars]
    grad = make_input(shape, dtype=dtype, seed=7).detach()
    fast = errors('moments', x, params, grad)
    published = errors('projections', x, params, grad)
    # 16 bits: no worse. float32: the residual is folded into the product, which rounds its part a
    # few times more often than one addition does.
    eps = torch.finfo(dtype).eps
    floor = 4 * eps if dtype == torch.float32 else 0.01 * eps
    for name in fast:
        assert fast[name] <= max(1.02 * published[name], floor), name


@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('method', METHODS[:2])
@pytest.mark.parametrize('dtype', [*HALF, torch.float32])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_dtypes_and_layouts(dtype, layout, method, norm):
    x = make_input((2, 8, 9, 10), layout, dtype)
    params = make_params(8, True, norm, dtype)
    # The gradient behind a norm is what two subtractions leave of it; a convolution is PyTorch's.
    loose = norm or (method == 'projections' and dtype == torch.float32)
    limit = (8 if loose else 4) * torch.finfo(dtype).eps
    grad = make_input(x.shape, dtype=dtype, seed=7).detach()
    assert max(errors(method, x, params, grad).values()) < limit
    z = with_norm(poly_nl, method=method)(x, *params)
    assert z.dtype == dtype
    z.sum().backward()
    assert all(p.grad.dtype == dtype for p in params)


@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('count', [7, 1000, 1_000_000])
def test_large_float16_activations_stay_finite(count, method, norm):
    x = (torch.rand(1, 4, count) * 1.2e5 - 6e4).half()
    x[0, 0] = 6e4
    x.requires_grad_()
    params = make_params(4, True, norm, torch.float32)
    params[3] = torch.full((), 0.1, requires_grad=True)
    params[4] = torch.full((), 0.1 if norm else 1e-12, requires_grad=True)
    z = with_norm(poly_nl, method=method)(x, *params)
    assert torch.isfinite(z).all()
    exact = with_norm(poly_nl_reference)(x.double(), *(p.double() for p in params))
    assert relative_error(z, exact) < 1e-3
    grads = torch.autograd.grad(z.float().square().mean() * 1e-6, (x, *params[:3]))
    assert all(torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_computes_as_a_convolution_does(dtype, method, norm):
    x = make_input((2, 8, 9, 10), dtype=dtype)
    params = make_params(8, True, norm, torch.float32)
    with torch.autocast(torch.empty(0).device.type, torch.bfloat16):
        z = with_norm(poly_nl, method=method)(x, *params)
        conv = torch.nn.functional.conv2d(x, params[0][:, :, None, None])
        (z.float().square().mean()).backward()  # inside autocast on purpose
    assert z.dtype == conv.dtype == torch.bfloat16
    assert x.grad.dtype == dtype
    assert all(p.grad.dtype == torch.float32 for p in params)
    wide = [p.detach().double() for p in params]
    exact = with_norm(poly_nl_reference)(x.detach().double(), *wide)
    assert relative_error(z.detach(), exact) < 0.02


def test_autocast_leaves_float64_alone():
    x, params = make_input((1, 4, 3, 3)), make_params(4)
    with torch.autocast(torch.empty(0).device.type, torch.bfloat16):
        z = poly_nl(x, *params)
    assert torch.equal(z, poly_nl(x, *params))


@pytest.mark.parametrize('method', METHODS[:2])
@pytest.mark.parametrize('dtype', HALF)
def test_second_moment_is_summed_in_float32(dtype, method):
    # 100,000 positions of 1: a bfloat16 sum would stop at 256, a float16 one at 2048.
    x = torch.ones(1, 2, 100_000, dtype=dtype)
    eye = torch.eye(2)
    z = poly_nl(x, eye, eye, eye, torch.zeros(()), torch.ones(()), method=method)
    assert torch.equal(z, x)
