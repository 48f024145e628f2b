"""Poly-NL through the second moment of its input: two N C^2 products, three more backward.

The context a of Poly-NL (the row that Phi gives) is, for every channel c,
``a_c = mean_n (w1_c . x_n)(w2_c . x_n) = w1_c^T S w2_c`` with ``S = X^T X / N``. So the layer is
one C x C matrix per sample, applied to its input. docs/layer.md derives it, with biases and
gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import Positions, chunk_spans, read_chunk, write_chunk
from .parameters import Mixing, Projections, cast
from .precision import accumulation_dtype
from .products import add_product_, cross_moment, left_multiply, multiply


def context(x: Tensor, p: Projections) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Compute the context of an input.

    Args:
        x (Tensor): (B, C, *spatial), not empty.
        p (Projections): In any floating-point dtype.

    Returns:
        tuple: The context (B, C), in float32 or better; and what :func:`context_backward` would
        otherwise compute again: N S and the mean, or nothing where they are larger than ``x``.
    """
    layout = Positions(x)
    p = cast(p, accumulation_dtype(x.dtype))
    second, mean = moments = _moments(x, p, layout)
    keep = second.numel() * second.itemsize <= x.numel() * x.itemsize
    return _context(second, mean, p, layout.count), (moments if keep else ())


def context_backward(
    d_context: Tensor,
    dx: Tensor | None,
    x: Tensor,
    p: Projections,
    moments: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of :func:`context`.

    Args:
        d_context (Tensor): dL/da, (B, C).
        dx (Tensor, optional): The gradient of ``x`` through everything else, to be added to, in
            place; None stands for zero.
        x (Tensor): (B, C, *spatial), the input.
        p (Projections): The parameters.
        moments (tuple): From :func:`context`.
        needs (tuple[bool, ...]): For ``x`` and each parameter, whether its gradient is wanted.

    Returns:
        tuple[Tensor | None, ...]: For ``x`` and each parameter, in the dtype sums are kept in.
    """
    layout = Positions(x)
    p = cast(p, accumulation_dtype(x.dtype))
    grads = dict.fromkeys(p._fields)
    if any(needs[1:]):
        second, mean = moments or _moments(x, p, layout)
        grads.update(_projection_grads(p, second, mean, d_context, layout.count))
    if needs[0]:
        dx = _add_input_grad(dx, x, p, d_context, layout)
    return (dx, *grads.values())


def mix(x: Tensor, context: Tensor, q: Mixing) -> Tensor:
    """Compute ``Z = (alpha I + beta W3 diag(a)) x + beta b3``.

    Args:
        x (Tensor): (B, C, *spatial), not empty.
        context (Tensor): (B, C), in the dtype sums are kept in.
        q (Mixing): In any floating-point dtype.

    Returns:
        Tensor: Like ``x``.
    """
    q = cast(q, context.dtype)
    shift = None if q.b3 is None else (q.beta * q.b3).unsqueeze(1)
    return _apply(_branch_matrix(q, context), q.alpha, x, shift, Positions(x))


def mix_backward(
    grad: Tensor, x: Tensor, context: Tensor, q: Mixing, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of :func:`mix`.

    Args:
        grad (Tensor): dL/dZ, like ``x``.
        x (Tensor): (B, C, *spatial), the input.
        context (Tensor): (B, C).
        q (Mixing): The parameters.
        needs (tuple[bool, ...]): For ``x``, the context and each parameter, whether its gradient is
            wanted.

    Returns:
        tuple[Tensor | None, ...]: For ``x``, the context and each parameter.
    """
    layout = Positions(x)
    q = cast(q, context.dtype)
    cross = cross_moment(grad, x, layout)  # K = G^T X, all that the parameters need of G
    per_channel = (q.w3 * cross).sum(1)
    grads = dict.fromkeys(q._fields)
    if needs[2]:
        grads['w3'] = _sum_over_batch(cross * (q.beta * context).unsqueeze(1))
    if needs[3]:
        grads['alpha'] = cross.diagonal(dim1=1, dim2=2).sum()
    if needs[4]:
        grads['beta'] = (per_channel * context).sum()
    if q.b3 is not None and (needs[4] or needs[5]):
        grad_sum = grad.flatten(2).sum((0, 2), dtype=q.b3.dtype)
        grads['b3'] = q.beta * grad_sum
        if needs[4]:
            grads['beta'] = grads['beta'] + torch.dot(grad_sum, q.b3)
    dx = None
    if needs[0]:
        matrix = _branch_matrix(q, context).transpose(1, 2)
        dx = _apply(matrix, q.alpha, grad, None, layout)
    return (dx, q.beta * per_channel, *grads.values())


def _moments(x: Tensor, p: Projections, layout: Positions) -> tuple[Tensor, Tensor | None]:
    """Return N S (B, C, C), and the mean (B, C) where a bias asks for it.

    The second moment stays a sum: dividing its C x C entries by N would take a pass over them,
    where dividing what is made of it takes one over C.
    """
    second = cross_moment(x, x, layout)
    if p.b1 is None and p.b2 is None:
        return second, None
    return second, x.mean(tuple(range(2, x.dim())), dtype=second.dtype)


def _context(second: Tensor, mean: Tensor | None, p: Projections, count: int) -> Tensor:
    """Return (B, C), the mean of ``(x W1 + b1) (.) (x W2 + b2)``, from the moments."""
    context = (left_multiply(p.w1, second) * p.w2).sum(2) * (1.0 / count)
    if p.b1 is not None:
        context = context + p.b1 * (mean @ p.w2.t())
    if p.b2 is not None:
        context = context + p.b2 * (mean @ p.w1.t())
    if p.b1 is not None and p.b2 is not None:
        context = context + p.b1 * p.b2
    return context


def _projection_grads(
    p: Projections, second: Tensor, mean: Tensor | None, d_context: Tensor, count: int
) -> dict[str, Tensor]:
    """Return the gradients of w1, w2, b1 and b2."""
    share = (d_context * (1.0 / count)).unsqueeze(2)
    grads = {
        'w1': _sum_over_batch(left_multiply(p.w2, second).mul_(share)),
        'w2': _sum_over_batch(left_multiply(p.w1, second).mul_(share)),
    }
    if p.b1 is not None:
        mean_right = mean @ p.w2.t()
        grads['w2'] = grads['w2'] + (d_context * p.b1).t() @ mean
        grads['b1'] = (d_context * (mean_right if p.b2 is None else mean_right + p.b2)).sum(0)
    if p.b2 is not None:
        mean_left = mean @ p.w1.t()
        grads['w1'] = grads['w1'] + (d_context * p.b2).t() @ mean
        grads['b2'] = (d_context * (mean_left if p.b1 is None else mean_left + p.b1)).sum(0)
    return grads


def _add_input_grad(
    dx: Tensor | None, x: Tensor, p: Projections, d_context: Tensor, layout: Positions
) -> Tensor:
    """Return ``dx + T x + t``: what comes through S and, with biases, through the mean."""
    share = d_context * (1.0 / layout.count)
    half = left_multiply(p.w1.t(), share.unsqueeze(2) * p.w2)
    matrix = half + half.transpose(1, 2)
    shift = None
    if p.b1 is not None:
        shift = (share * p.b1) @ p.w2
    if p.b2 is not None:
        other = (share * p.b2) @ p.w1
        shift = other if shift is None else shift + other
    shift = None if shift is None else shift.unsqueeze(2)
    if dx is None:
        return _apply(matrix, None, x, shift, layout)
    if _needs_chunks(x, layout):
        xs, ds = layout.chunkable(x), layout.chunkable(dx)
        for span in chunk_spans(xs):
            d = add_product_(
                read_chunk(ds, span), matrix, read_chunk(xs, span), layout.channels_last
            )
            write_chunk(ds, span, d if shift is None else d.add_(shift))
        return layout.restore(ds)
    d = layout.view(dx)
    add_product_(d, matrix.to(x.dtype), layout.view(x), layout.channels_last)
    return layout.restore(d if shift is None else d.add_(shift))


def _apply(
    matrix: Tensor, alpha: Tensor | None, x: Tensor, shift: Tensor | None, layout: Positions
) -> Tensor:
    """Return ``(matrix + alpha I) x + shift``, in the given layout; ``matrix`` is written to."""
    if _needs_chunks(x, layout):
        _add_to_diagonal_(matrix, alpha)
        xs = layout.chunkable(x)
        out = layout.empty_like(xs)
        for span in chunk_spans(xs):
            z = multiply(matrix, read_chunk(xs, span), layout.channels_last)
            write_chunk(out, span, z if shift is None else z.add_(shift))
        return layout.restore(out)
    columns = layout.view(x)
    folded = matrix.dtype == x.dtype
    if folded:
        _add_to_diagonal_(matrix, alpha)
    z = multiply(matrix.to(x.dtype), columns, layout.channels_last)
    if not folded and alpha is not None:
        # alpha is not folded into a 16-bit matrix: rounding it there would cost as much again as
        # rounding the result does.
        z.addcmul_(columns, alpha.to(x.dtype))
    if shift is not None:
        z.add_(shift)
    return layout.restore(z)


def _needs_chunks(x: Tensor, layout: Positions) -> bool:
    """Return whether the input is worked on through small scratch copies in a wide dtype.

    So it is where no (B, C, N) view exists, and for float16 on a CPU, whose float16 products take
    30 to 100 times as long as float32 ones.
    """
    return not layout.merged or (x.dtype == torch.float16 and x.device.type == 'cpu')


def _branch_matrix(q: Mixing, context: Tensor) -> Tensor:
    """Return (B, C, C), ``beta W3 diag(a)``."""
    return q.w3 * (q.beta * context).unsqueeze(1)


def _add_to_diagonal_(matrix: Tensor, alpha: Tensor | None) -> None:
    """Add ``alpha I`` in place."""
    if alpha is not None:
        matrix.diagonal(dim1=1, dim2=2).add_(alpha)


def _sum_over_batch(matrices: Tensor) -> Tensor:
    """Return the sum of (B, C, C) over the samples; of one sample without a pass."""
    return matrices[0] if matrices.shape[0] == 1 else matrices.sum(0)
