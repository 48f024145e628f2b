"""Inputs that several of the operator's tests share."""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

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


def make_params(
    channels: int,
    biases: tuple[bool, bool, bool] = (False,) * 3,
    dtype=torch.float64,
    seed=0,
    norm: bool = False,
) -> list[Tensor | None]:
    """Return w1, w2, w3, alpha, beta, b1, b2, b3 of usual sizes, requiring gradients.

    With ``norm`` two more follow, a LayerNorm's weight and bias: see :func:`with_norm`.
    """
    rng = torch.Generator('cpu').manual_seed(seed)

    def draw(*shape):
        x = torch.randn(*shape, generator=rng, dtype=torch.float64, device='cpu')
        return x.to(torch.empty(0).device, dtype)

    params = [draw(channels, channels) / channels**0.5 for _ in range(3)]
    params += [draw(1), draw(())]
    params += [draw(channels) if wanted else None for wanted in biases]
    params += [1 + draw(channels) / 4, draw(channels) / 4] if norm else []
    return [None if p is None else p.requires_grad_() for p in params]


def with_norm(function: Callable[..., Tensor], **kwargs) -> Callable[..., Tensor]:
    """Return a function of x and what ``make_params`` gives, with or without a norm."""

    def call(x: Tensor, *params: Tensor | None) -> Tensor:
        if len(params) == 8:
            return function(x, *params, **kwargs)
        weight, bias = params[8:]

        def norm(context: Tensor) -> Tensor:
            dtype = context.dtype
            return F.layer_norm(context, context.shape[1:], weight.to(dtype), bias.to(dtype))

        return function(x, *params[:8], context_norm=norm, **kwargs)

    return call


def make_input(shape: tuple[int, ...], layout: str = 'contiguous', dtype=torch.float64, seed=1):
    """Return a (B, C, H, W) tensor of the given layout in memory, requiring gradients."""
    rng = torch.Generator('cpu').manual_seed(seed)
    b, c, h, w = shape

    def draw(*shape):
        x = torch.randn(*shape, generator=rng, dtype=torch.float64, device='cpu')
        return x.to(torch.empty(0).device, dtype)

    x = {
        'contiguous': lambda: draw(b, c, h, w),
        'channels_last': lambda: draw(b, h, w, c).permute(0, 3, 1, 2),
        'transposed': lambda: draw(b, c, w, h).transpose(2, 3),
        'cropped': lambda: draw(b, c, h + 2, w + 3)[:, :, 1:-1, 2:-1],
        'strided': lambda: draw(b, c, h, 2 * w)[..., ::2],
        'channel_slice': lambda: draw(b, c + 2, h, w)[:, 1:-1],
        'expanded_batch': lambda: draw(1, c, h, w).expand(b, -1, -1, -1),
    }[layout]()
    return x.requires_grad_()


def with_grads(function, x: Tensor, params: list[Tensor | None], grad: Tensor) -> list[Tensor]:
    """Return [output, gradient of x, gradients of the parameters that are given]."""
    out = function(x, *params)
    inputs = [x, *(p for p in params if p is not None)]
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return |a - b| / |b| in the Euclidean norm; plain |a - b| where b is all zeros."""
    scale = b.norm().item()
    return (a.to(b.dtype) - b).norm().item() / (scale or 1.0)


def relative_errors(
    found: list[Tensor], exact: list[Tensor], x: Tensor, grad: Tensor
) -> dict[str, float]:
    """Return by name the errors of what ``with_grads`` gave.

    The gradients of alpha and beta are sums over everything that may cancel to nothing: their
    errors are relative to the product of the norms of what is summed.
    """
    names = ['z', 'x', 'w1', 'w2', 'w3', 'alpha', 'beta']
    names += [f'bias or norm {i}' for i in range(len(found) - len(names))]
    errors = {n: relative_error(a, b) for n, a, b in zip(names, found, exact)}
    for index, other in ((5, x), (6, exact[0])):
        scale = grad.double().norm() * other.detach().double().norm()
        difference = found[index].double() - exact[index].double()
        errors[names[index]] = (difference.norm() / scale).item()
    return errors
