"""Poly-NL through the second moment of its input: two N C^2 products, three more backward.

The context a of Poly-NL (the row that Phi gives) is, for every channel c,
``a_c = mean_n (w1_c . x_n)(w2_c . x_n) = w1_c^T S w2_c`` with ``S = X^T X / N``. So the layer is
one C x C matrix per sample, applied to its input. docs/layer.md derives it, with biases and
gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Positions, cut, put, spans
from .precision import accumulator
from .products import add_transform_, alone, cross_moment, transform


class Parameters(NamedTuple):
    """What the layer learns: weights (C, C) out x in, scalars (), biases (C,) or None."""

    w1: Tensor
    w2: Tensor
    w3: Tensor
    alpha: Tensor
    beta: Tensor
    b1: Tensor | None
    b2: Tensor | None
    b3: Tensor | None

    def to(self, dtype: torch.dtype) -> Parameters:
        return Parameters(*(p if p is None or p.dtype == dtype else p.to(dtype) for p in self))


class Moments(NamedTuple):
    """What the backward pass needs beside the input: N S (B, C, C), mean (B, C) or None, a (B, C).

    The second moment is kept as a sum: dividing its C x C entries by N would take a pass over them,
    where dividing what is made of it takes one over C.
    """

    second: Tensor
    mean: Tensor | None
    context: Tensor


def forward(x: Tensor, p: Parameters) -> tuple[Tensor, Moments]:
    """Z of the layer, and the moments it was made from.

    Args:
        x (Tensor): (B, C, *spatial), not empty.
        p (Parameters): In any floating-point dtype.

    Returns:
        tuple[Tensor, Moments]: Z like ``x``; the moments in float32 or better.
    """
    layout = Positions(x)
    p = p.to(accumulator(x.dtype))
    found = _moments(x, p, layout)
    return _apply(x, p, found.context, layout), found


def moments(x: Tensor, p: Parameters) -> Moments:
    """The moments of ``x`` that the layer is a function of; arguments as in :func:`forward`."""
    return _moments(x, p.to(accumulator(x.dtype)), Positions(x))


def _moments(x: Tensor, p: Parameters, layout: Positions) -> Moments:
    second = cross_moment(x, x, layout)
    mean = x.mean(tuple(range(2, x.dim())), dtype=second.dtype) if _biased(p) else None
    return Moments(second, mean, _context(second, mean, p, layout.count))


def plain(x: Tensor, p: Parameters) -> Tensor:
    """The same in few plain operations, for tracers and for differentiating twice."""
    acc = accumulator(x.dtype)
    p = p.to(acc)
    columns = x.flatten(2)
    wide = columns.to(acc)
    second = torch.matmul(wide, wide.transpose(1, 2))
    mean = wide.mean(2) if _biased(p) else None
    matrix = _mixing(p, _context(second, mean, p, columns.shape[2]))
    if acc == x.dtype:
        matrix = matrix + p.alpha * torch.eye(x.shape[1], dtype=acc, device=x.device)
        z = torch.matmul(matrix, columns)
    else:
        z = torch.matmul(matrix.to(x.dtype), columns) + p.alpha.to(x.dtype) * columns
    if p.b3 is not None:
        z = z + (p.beta * p.b3).to(x.dtype)[:, None]
    return z.reshape(x.shape)


def backward(
    grad: Tensor, x: Tensor, p: Parameters, found: Moments, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of the input and of every parameter.

    Args:
        grad (Tensor): dL/dZ, like ``x``.
        x (Tensor): (B, C, *spatial), the layer's input.
        p (Parameters): The layer's parameters.
        found (Moments): From :func:`forward` or :func:`moments`.
        needs (tuple[bool, ...]): For ``x`` and each parameter, whether its gradient is wanted.

    Returns:
        tuple[Tensor | None, ...]: For ``x`` and each parameter, in the dtype sums are kept in.
    """
    layout = Positions(x)
    p = p.to(accumulator(x.dtype))
    second, mean, context = found
    cross = cross_moment(grad, x, layout)  # K = G^T X, all that the parameters need of G
    per_channel = (p.w3 * cross).sum(1)
    d_context = p.beta * per_channel
    grads = dict.fromkeys(p._fields)
    if needs[3]:
        grads['w3'] = _batch_sum(cross * (p.beta * context)[:, None, :])
    if needs[4]:
        grads['alpha'] = cross.diagonal(dim1=1, dim2=2).sum()
    if needs[5]:
        grads['beta'] = (per_channel * context).sum()
    if p.b3 is not None and (needs[5] or needs[8]):
        grad_sum = grad.flatten(2).sum((0, 2), dtype=p.b3.dtype)
        grads['b3'] = p.beta * grad_sum
        if needs[5]:
            grads['beta'] = grads['beta'] + torch.dot(grad_sum, p.b3)
    if any(needs[i] for i in (1, 2, 6, 7)):
        grads.update(_projection_grads(p, second, mean, d_context, layout.count))
    dx = _input_grad(grad, x, p, context, d_context, layout) if needs[0] else None
    return (dx, *(grads[name] for name in p._fields))


def _biased(p: Parameters) -> bool:
    return p.b1 is not None or p.b2 is not None


def _context(second: Tensor, mean: Tensor | None, p: Parameters, count: int) -> Tensor:
    """(B, C): the mean over positions of ``(x W1 + b1) (.) (x W2 + b2)``; ``second`` is N S."""
    context = (_squares(p.w1, second) * p.w2).sum(2) * (1.0 / count)
    if p.b1 is not None:
        context = context + p.b1 * (mean @ p.w2.t())
    if p.b2 is not None:
        context = context + p.b2 * (mean @ p.w1.t())
    if p.b1 is not None and p.b2 is not None:
        context = context + p.b1 * p.b2
    return context


def _squares(weight: Tensor, matrices: Tensor) -> Tensor:
    """(C, C), (B, C, C) -> (B, C, C): ``weight @ matrices``."""
    if alone(matrices):
        return torch.mm(weight, matrices[0])[None]
    return torch.matmul(weight, matrices)


def _batch_sum(matrices: Tensor) -> Tensor:
    """(B, C, C) -> (C, C); for one sample without a pass."""
    return matrices[0] if matrices.shape[0] == 1 else matrices.sum(0)


def _mixing(p: Parameters, context: Tensor) -> Tensor:
    """(B, C, C): beta W3 diag(a)."""
    return p.w3 * (p.beta * context)[:, None, :]


def _with_residual(matrix: Tensor, alpha: Tensor) -> Tensor:
    """``matrix + alpha I``, written into a fresh ``matrix``."""
    matrix.diagonal(dim1=1, dim2=2).add_(alpha)
    return matrix


def _in_pieces(x: Tensor, layout: Positions) -> bool:
    """Whether the input is worked on through small scratch copies in a wide dtype.

    So it is where no (B, C, N) view exists, and for float16 on a CPU, whose float16 products take
    30 to 100 times as long as float32 ones.
    """
    return not layout.merged or (x.dtype == torch.float16 and x.device.type == 'cpu')


def _apply(x: Tensor, p: Parameters, context: Tensor, layout: Positions) -> Tensor:
    """Z = (alpha I + beta W3 diag(a)) x + beta b3."""
    matrix = _mixing(p, context)
    shift = None if p.b3 is None else (p.beta * p.b3)[:, None]
    if _in_pieces(x, layout):
        _with_residual(matrix, p.alpha)
        xs = layout.pieces(x)
        out = layout.empty(xs)
        for span in spans(xs):
            z = transform(matrix, cut(xs, span), layout.channels_last)
            put(out, span, z if shift is None else z.add_(shift))
        return layout.restore(out)
    columns = layout.view(x)
    folded = matrix.dtype == x.dtype
    if folded:
        _with_residual(matrix, p.alpha)
    z = transform(matrix.to(x.dtype), columns, layout.channels_last)
    if not folded:
        # alpha is not folded into a 16-bit matrix: rounding it there would cost as much again as
        # rounding the result does.
        z.addcmul_(columns, p.alpha.to(x.dtype))
    if shift is not None:
        z.add_(shift)
    return layout.restore(z)


def _projection_grads(
    p: Parameters, second: Tensor, mean: Tensor | None, d_context: Tensor, count: int
) -> dict[str, Tensor]:
    """Gradients of w1, w2, b1, b2, of which the context is a function; ``second`` is N S."""
    share = (d_context * (1.0 / count))[:, :, None]
    grads = {
        'w1': _batch_sum(_squares(p.w2, second).mul_(share)),
        'w2': _batch_sum(_squares(p.w1, second).mul_(share)),
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


def _input_grad(
    grad: Tensor,
    x: Tensor,
    p: Parameters,
    context: Tensor,
    d_context: Tensor,
    layout: Positions,
) -> Tensor:
    """dX = (alpha I + beta W3 diag(a))^T G + T x + t: through Z, through S and through the mean."""
    matrix = _mixing(p, context)
    share = (d_context * (1.0 / layout.count))[:, :, None]
    half = _squares(p.w1.t(), share * p.w2)
    through = half + half.transpose(1, 2)
    shift = None
    if _biased(p):
        zero = torch.zeros_like(d_context)
        shift = (zero if p.b1 is None else d_context * p.b1) @ p.w2
        shift = shift + (zero if p.b2 is None else d_context * p.b2) @ p.w1
        shift = (shift * (1.0 / layout.count))[:, :, None]
    if _in_pieces(x, layout):
        _with_residual(matrix, p.alpha)
        xs, gs = layout.pieces(x), layout.pieces(grad)
        out = layout.empty(xs)
        for span in spans(xs):
            d = transform(matrix.transpose(1, 2), cut(gs, span), layout.channels_last)
            add_transform_(d, through, cut(xs, span), layout.channels_last)
            put(out, span, d if shift is None else d.add_(shift))
        return layout.restore(out)
    columns, g = layout.view(x), layout.view(grad)
    folded = matrix.dtype == x.dtype
    if folded:
        _with_residual(matrix, p.alpha)
    d = transform(matrix.to(x.dtype).transpose(1, 2), g, layout.channels_last)
    add_transform_(d, through.to(x.dtype), columns, layout.channels_last)
    if not folded:
        d.addcmul_(g, p.alpha.to(x.dtype))
    if shift is not None:
        d.add_(shift)
    return layout.restore(d)
