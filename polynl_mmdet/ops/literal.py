"""Poly-NL in the order in which it was published: three N C^2 products.

The better order only where there are few positions for the channels; see cost.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .covariance import Parameters
from .layout import Positions
from .precision import accumulator
from .products import add_transform_, transform


def forward(x: Tensor, p: Parameters) -> Tensor:
    """Z of the layer.

    Args:
        x (Tensor): (B, C, *spatial), not empty.
        p (Parameters): In any floating-point dtype.

    Returns:
        Tensor: Like ``x``.
    """
    layout = Positions(x)
    columns = _columns(x, layout)
    p = p.to(columns.dtype)
    last = layout.channels_last
    left, right = _projections(columns, p, last)
    y = transform(_batched(p.w3, columns), _context(left, right) * columns, last)
    if p.b3 is not None:
        y = y + p.b3[:, None]
    return layout.restore((p.alpha * columns + p.beta * y).to(x.dtype))


def backward(
    grad: Tensor, x: Tensor, p: Parameters, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of the input and of every parameter; the projections are computed again.

    Args:
        grad (Tensor): dL/dZ, like ``x``.
        x (Tensor): (B, C, *spatial), the layer's input.
        p (Parameters): The layer's parameters.
        needs (tuple[bool, ...]): For ``x`` and each parameter, whether its gradient is wanted.

    Returns:
        tuple[Tensor | None, ...]: For ``x`` and each parameter, in the dtype they were computed in.
    """
    layout = Positions(x)
    columns = _columns(x, layout)
    g = layout.view(grad).to(columns.dtype)
    acc = accumulator(columns.dtype)
    p = p.to(columns.dtype)
    last = layout.channels_last
    left, right = _projections(columns, p, last)
    context = _context(left, right)
    d_y = p.beta * g
    d_gated = transform(_batched(p.w3.t(), g), d_y, last)
    d_context = (d_gated * columns).sum(2, keepdim=True, dtype=acc)
    share = (d_context / layout.count).to(columns.dtype)
    d_left, d_right = share * right, share * left
    grads = dict.fromkeys(p._fields)
    if needs[3] or needs[5]:
        through = _over_batch(g, context * columns)
        grads['w3'] = p.beta * through
        grads['beta'] = (p.w3 * through).sum()
    if needs[4]:
        grads['alpha'] = (g * columns).sum(dtype=acc)
    if p.b3 is not None:
        grad_sum = g.sum((0, 2), dtype=acc)
        grads['b3'] = p.beta * grad_sum
        if needs[5]:
            grads['beta'] = grads['beta'] + torch.dot(grad_sum, p.b3.to(acc))
    if needs[1]:
        grads['w1'] = _over_batch(d_left, columns)
    if needs[2]:
        grads['w2'] = _over_batch(d_right, columns)
    if p.b1 is not None:
        grads['b1'] = d_left.sum((0, 2), dtype=acc)
    if p.b2 is not None:
        grads['b2'] = d_right.sum((0, 2), dtype=acc)
    dx = None
    if needs[0]:
        dx = torch.addcmul(p.alpha * g, context, d_gated)
        add_transform_(dx, _batched(p.w1.t(), g), d_left, last)
        add_transform_(dx, _batched(p.w2.t(), g), d_right, last)
        dx = layout.restore(dx)
    return (dx, *(grads[name] for name in p._fields))


def _columns(x: Tensor, layout: Positions) -> Tensor:
    """(B, C, N); float16 widened, because projections of large activations leave its range."""
    columns = layout.view(x)
    return columns.float() if x.dtype == torch.float16 else columns


def _batched(weight: Tensor, columns: Tensor) -> Tensor:
    return weight.expand(columns.shape[0], -1, -1)


def _projections(columns: Tensor, p: Parameters, last: bool) -> tuple[Tensor, Tensor]:
    left = transform(_batched(p.w1, columns), columns, last)
    right = transform(_batched(p.w2, columns), columns, last)
    left = left if p.b1 is None else left + p.b1[:, None]
    right = right if p.b2 is None else right + p.b2[:, None]
    return left, right


def _context(left: Tensor, right: Tensor) -> Tensor:
    """(B, C, 1): Phi, the mean over positions."""
    acc = accumulator(left.dtype)
    return (left * right).mean(2, keepdim=True, dtype=acc).to(left.dtype)


def _over_batch(a: Tensor, b: Tensor) -> Tensor:
    """sum over samples and positions of ``a_n b_n^T``: (B, C, N) twice -> (C, C)."""
    return torch.bmm(a, b.transpose(1, 2)).sum(0, dtype=accumulator(a.dtype))
