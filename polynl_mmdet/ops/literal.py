"""Poly-NL in the order in which it was published: three N C^2 products, eight more backward.

The better order only where there are few positions for the channels; see cost.py. Arguments and
results are those of covariance.py. float16 is widened, as projections of large activations leave
its range; on CUDA only where a product's operands would.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from . import covariance
from .cpu_library import onednn_moment, same_layout, uses_onednn
from .layout import Positions
from .parameters import Mixing, Projections, cast
from .precision import accumulation_dtype
from .products import add_product_, multiply, widens_products

# Positions of a sample, up to which copying a batch costs less than a product for each sample.
_FEW = 64


def context(x: Tensor, p: Projections) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Compute the context (B, C) from both projections.

    They are kept for :func:`context_backward` where a sample has no more positions than channels,
    as where this form is the cheaper one: they are smaller than the weights then.
    """
    layout = Positions(x)
    left, right = projections = _projections(x, p, layout)
    keep = layout.count <= x.shape[1]
    context = (left * right).mean(2, dtype=accumulation_dtype(left.dtype))
    return context, (projections if keep else ())


def context_backward(
    d_context: Tensor,
    dx: Tensor | None,
    x: Tensor,
    p: Projections,
    kept: tuple[Tensor, ...],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of :func:`context`, from the projections or with them made again."""
    layout = Positions(x)
    columns, last = _columns(x, layout)
    acc = d_context.dtype
    left, right = kept or _projections(x, p, layout)
    share = (d_context / layout.count).to(columns.dtype).unsqueeze(2)
    d_left, d_right = share * right, share * left
    grads = dict.fromkeys(p._fields)
    if needs[1]:
        grads['w1'] = _sum_of_outer_products(d_left, columns, last)
    if needs[2]:
        grads['w2'] = _sum_of_outer_products(d_right, columns, last)
    if p.b1 is not None:
        grads['b1'] = d_left.sum((0, 2), dtype=acc)
    if p.b2 is not None:
        grads['b2'] = d_right.sum((0, 2), dtype=acc)
    if needs[0]:
        p = cast(p, columns.dtype)
        if dx is None:
            dx = _multiply(p.w1.t(), d_left, last)
        else:
            dx = _add_product(layout.view(dx).to(columns.dtype), p.w1.t(), d_left, last)
        dx = _restore(_add_product(dx, p.w2.t(), d_right, last), layout)
    return (dx, *grads.values())


def mix(x: Tensor, context: Tensor, q: Mixing) -> Tensor:
    """Compute ``Z = alpha x + beta (W3 (a (.) x) + b3)``."""
    if _stays_float16(x):  # a (.) x may leave its range, W3 diag(a) rather not
        return covariance.mix(x, context, q)
    layout = Positions(x)
    columns, last = _columns(x, layout)
    q = cast(q, columns.dtype)
    gated = context.to(columns.dtype).unsqueeze(2) * columns
    y = _multiply(q.w3, gated, last)
    if q.b3 is not None:
        y = y + q.b3.unsqueeze(1)
    return _restore((q.alpha * columns + q.beta * y).to(x.dtype), layout)


def mix_backward(
    grad: Tensor, x: Tensor, context: Tensor, q: Mixing, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of :func:`mix`."""
    if _stays_float16(x):
        return covariance.mix_backward(grad, x, context, q, needs)
    layout = Positions(x)
    columns, last = _columns(x, layout)
    g, _ = _columns(grad, layout)
    acc = context.dtype
    q = cast(q, columns.dtype)
    context = context.to(columns.dtype).unsqueeze(2)
    d_gated = _multiply(q.w3.t(), q.beta * g, last)
    grads = dict.fromkeys(q._fields)
    if needs[2] or needs[4]:
        through = _sum_of_outer_products(g, context * columns, last)
        grads['beta'] = torch.dot(q.w3.flatten().to(acc), through.flatten())
        grads['w3'] = through.mul_(q.beta)
    if needs[3]:
        grads['alpha'] = (g * columns).sum(dtype=acc)
    if q.b3 is not None:
        grad_sum = g.sum((0, 2), dtype=acc)
        grads['b3'] = q.beta * grad_sum
        if needs[4]:
            grads['beta'] = grads['beta'] + torch.dot(grad_sum, q.b3.to(acc))
    d_context = (d_gated * columns).sum(2, dtype=acc)
    dx = _restore(torch.addcmul(q.alpha * g, context, d_gated), layout) if needs[0] else None
    return (dx, d_context, *grads.values())


def _columns(x: Tensor, layout: Positions, widen: bool = True) -> tuple[Tensor, bool]:
    """Return (B, C, N), float16 widened, and whether its channels are side by side.

    In a batch of few positions on a CPU they are made to be, so that one product takes all samples.
    """
    columns = layout.view(x)
    if widen and x.dtype == torch.float16:
        columns = columns.float()
    few = len(x) > 1 and layout.count <= _FEW and x.device.type == 'cpu'
    if few and not torch.compiler.is_compiling():
        return columns.transpose(1, 2).contiguous().transpose(1, 2), True
    return columns, layout.channels_last


def _restore(t: Tensor, layout: Positions) -> Tensor:
    """Return (B, C, N) in the shape and the memory format of the input."""
    return layout.restore(t if layout.channels_last else t.contiguous())


def _stays_float16(x: Tensor) -> bool:
    """Return whether float16 operands of a product need no widening, as it gives float32."""
    return x.dtype == torch.float16 and widens_products(x)


def _multiply(
    weight: Tensor, x: Tensor, channels_last: bool, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Return ``weight @ x`` for every sample: (C, C), (B, C, N) -> (B, C, N)."""
    folded = _fold(x, channels_last)
    y = multiply(weight.expand(len(folded), -1, -1), folded, channels_last, out_dtype)
    return _unfold(y, x)


def _add_product(target: Tensor, weight: Tensor, x: Tensor, channels_last: bool) -> Tensor:
    """Return ``target + weight @ x``, which ``target`` may be written over with."""
    folded = _fold(x, channels_last)
    weights = weight.expand(len(folded), -1, -1)
    return _unfold(add_product_(_fold(target, channels_last), weights, folded, channels_last), x)


def _fold(t: Tensor, channels_last: bool) -> Tensor:
    """Return channels-last (B, C, N) as (1, C, B N), what one weight for all samples allows."""
    return t.transpose(1, 2).flatten(0, 1).t()[None] if channels_last else t


def _unfold(t: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`_fold`."""
    return t if t.shape == like.shape else t[0].t().unflatten(0, (len(like), -1)).transpose(1, 2)


def _projections(x: Tensor, p: Projections, layout: Positions) -> tuple[Tensor, Tensor]:
    columns, last = _columns(x, layout, widen=not _stays_float16(x))
    out_dtype = torch.float32 if columns.dtype == torch.float16 else columns.dtype
    w1, w2, _, _ = cast(p, columns.dtype)
    left = _multiply(w1, columns, last, out_dtype)
    right = _multiply(w2, columns, last, out_dtype)
    _, _, b1, b2 = cast(p, out_dtype)
    left = left if b1 is None else left + b1.unsqueeze(1)
    right = right if b2 is None else right + b2.unsqueeze(1)
    return left, right


def _sum_of_outer_products(a: Tensor, b: Tensor, channels_last: bool) -> Tensor:
    """Return the sum over samples and positions of ``a_n b_n^T``: (B, C, N) twice -> (C, C)."""
    a, b = (_fold(t, channels_last) for t in (a, b))
    if uses_onednn(a) and same_layout(a, b):
        return reduce(Tensor.add_, (onednn_moment(x, y) for x, y in zip(a, b)))
    return torch.bmm(a, b.transpose(1, 2)).sum(0, dtype=accumulation_dtype(a.dtype))
