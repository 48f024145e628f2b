"""Inputs and errors that several of the operator's tests share."""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from polynl_mmdet.ops import poly_nl, poly_nl_reference

METHODS = ('projections', 'moments', 'auto')
LAYOUTS = (
    'contiguous',
    'channels_last',
    'transposed',
    'cropped',
    'strided',
    'channel_slice',
    'expanded_batch',
)


def draw(rng: torch.Generator, dtype, *shape: int) -> Tensor:
    """Draw the same numbers for every dtype and device."""
    x = torch.randn(shape, generator=rng, dtype=torch.float64, device='cpu')
    return x.to(torch.empty(0).device, dtype)


def make_params(
    channels: int, bias: bool = False, norm: bool = False, dtype=torch.float64, seed: int = 0
) -> list[Tensor | None]:
    """Return w1, w2, w3, alpha, beta, b1, b2, b3 of usual sizes, requiring gradients.

    With ``norm`` two more follow, a LayerNorm's weight and bias: see :func:`with_norm`.
    """
    rng = torch.Generator('cpu').manual_seed(seed)
    params = [draw(rng, dtype, channels, channels) / channels**0.5 for _ in range(3)]
    params += [draw(rng, dtype, 1), draw(rng, dtype)]
    params += [draw(rng, dtype, channels) if bias else None for _ in range(3)]
    params += [draw(rng, dtype, channels) / 4 + 1 - i for i in range(2)] if norm else []
    return [None if p is None else p.requires_grad_() for p in params]


def with_norm(function: Callable[..., Tensor], **kwargs) -> Callable[..., Tensor]:
    """Return a function of x and what ``make_params`` gives, with or without a norm."""

    def call(x: Tensor, *params: Tensor | None) -> Tensor:
        if len(params) == 8:
            return function(x, *params, **kwargs)

        def norm(context: Tensor) -> Tensor:
            weight, bias = [p.to(context.dtype) for p in params[8:]]
            return F.layer_norm(context, context.shape[1:], weight, bias)

        return function(x, *params[:8], context_norm=norm, **kwargs)

    return call


def make_input(shape: tuple[int, ...], layout: str = 'contiguous', dtype=torch.float64, seed=1):
    """Return a (B, C, H, W) tensor of the given layout in memory, requiring gradients."""
    rng = torch.Generator('cpu').manual_seed(seed)
    b, c, h, w = shape
    x = {
        'contiguous': lambda: draw(rng, dtype, b, c, h, w),
        'channels_last': lambda: draw(rng, dtype, b, h, w, c).permute(0, 3, 1, 2),
        'transposed': lambda: draw(rng, dtype, b, c, w, h).transpose(2, 3),
        'cropped': lambda: draw(rng, dtype, b, c, h + 2, w + 3)[:, :, 1:-1, 2:-1],
        'strided': lambda: draw(rng, dtype, b, c, h, 2 * w)[..., ::2],
        'channel_slice': lambda: draw(rng, dtype, b, c + 2, h, w)[:, 1:-1],
        'expanded_batch': lambda: draw(rng, dtype, 1, c, h, w).expand(b, -1, -1, -1),
    }[layout]()
    return x.requires_grad_()


def with_grads(function, x: Tensor, params: list[Tensor | None], grad: Tensor) -> list[Tensor]:
    """Return [output, gradient of x, gradients of the parameters that are given]."""
    out = function(x, *params)
    inputs = [x, *(p for p in params if p is not None)]
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return |a - b| / |b| in the Euclidean norm; plain |a - b| where b is all zeros."""
    return (a.to(b.dtype) - b).norm().item() / (b.norm().item() or 1.0)


def errors(method: str, x: Tensor, params: list[Tensor | None], grad: Tensor) -> dict[str, float]:
    """Return by name the errors of the result and of every gradient, against float64.

    The gradients of alpha and beta are sums over everything that may cancel to nothing: their
    errors are relative to the product of the norms of what is summed.
    """
    found = with_grads(with_norm(poly_nl, method=method), x, params, grad)
    wide = [None if p is None else p.detach().double().requires_grad_() for p in params]
    wide_x, grad = x.detach().double().requires_grad_(), grad.double()
    exact = with_grads(with_norm(poly_nl_reference), wide_x, wide, grad)
    names = ['z', 'x', 'w1', 'w2', 'w3', 'alpha', 'beta']
    names += [f'bias or norm {i}' for i in range(len(found) - len(names))]
    result = {n: relative_error(a, b) for n, a, b in zip(names, found, exact)}
    for index, other in ((5, wide_x), (6, exact[0])):
        scale = grad.norm() * other.detach().norm()
        difference = found[index].double() - exact[index]
        result[names[index]] = (difference.norm() / scale).item()
    return result
