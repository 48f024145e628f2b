"""The operator's two steps as autograd Functions that keep only the input and C x C matrices.

The first gives the context, the second Z. Whatever stands between them is differentiated by
autograd. The first also hands the input on to the second, so that its backward pass receives the
gradient that the second has for the input, and adds to it in place: one N x C gradient is made,
not two and their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from . import covariance, literal, traceable
from .parameters import Mixing, Projections

FORMS = {'literal': literal, 'covariance': covariance}


class Context(torch.autograd.Function):
    """``Context.apply(method, x, *projections)`` -> the context (B, C), and ``x``."""

    @staticmethod
    def forward(ctx, method: str, x: Tensor, *projections: Tensor | None) -> tuple[Tensor, Tensor]:
        context, moments = FORMS[method].context(x, Projections(*projections))
        ctx.method = method
        ctx.save_for_backward(x, *projections, *moments)
        if not ctx.needs_input_grad[1]:
            ctx.mark_non_differentiable(x)
        return context, x

    @staticmethod
    def backward(ctx, d_context: Tensor, dx: Tensor | None) -> tuple[Tensor | None, ...]:
        x, w1, w2, b1, b2, *moments = ctx.saved_tensors
        p = Projections(w1, w2, b1, b2)
        needs = ctx.needs_input_grad[1:]
        if _is_recorded():
            grads = _recorded_grads(
                lambda x, *p: traceable.context(x, Projections(*p)), d_context, (x, *p), needs
            )
            if needs[0]:
                grads[0] = grads[0] + dx
            return (None, *grads)
        with _without_autocast(x):
            form = FORMS[ctx.method]
            grads = form.context_backward(d_context, dx, x, p, tuple(moments), needs)
        return (None, *_cast_grads(grads, (x, *p), needs))


class Mix(torch.autograd.Function):
    """``Mix.apply(method, x, context, *mixing)`` -> Z like ``x``."""

    @staticmethod
    def forward(ctx, method: str, x: Tensor, context: Tensor, *mixing: Tensor | None) -> Tensor:
        ctx.method = method
        ctx.save_for_backward(x, context, *mixing)
        return _without_view(FORMS[method].mix(x, context, Mixing(*mixing)))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, context, *rest = ctx.saved_tensors
        q = Mixing(*rest)
        needs = ctx.needs_input_grad[1:]
        if _is_recorded():
            grads = _recorded_grads(
                lambda x, context, *q: traceable.mix(x, context, Mixing(*q)),
                grad,
                (x, context, *q),
                needs,
            )
            return (None, *grads)
        with _without_autocast(x):
            grads = FORMS[ctx.method].mix_backward(grad, x, context, q, needs)
        return (None, *_cast_grads(grads, (x, context, *q), needs))


def _without_view(z: Tensor) -> Tensor:
    """Return ``z`` as no view of another tensor: autograd forbids in-place work on a Function's
    view, and a bottleneck adds its residual in place."""
    return z.detach()


def _without_autocast(x: Tensor):
    kind = x.device.type
    enabled = torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if enabled else nullcontext()


def _is_recorded() -> bool:
    """Return whether the running backward pass will itself be differentiated."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _recorded_grads(
    function: Callable[..., Tensor],
    grad: Tensor,
    inputs: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> list[Tensor | None]:
    """Return the gradients as functions of ``grad`` and all inputs, which autograd knows."""
    # Views: one tensor given for two arguments must count as two.
    inputs = [None if t is None else t.view_as(t) for t in inputs]
    with torch.autocast(inputs[0].device.type, enabled=False):
        out = function(*inputs)
        wanted = [t for t, need in zip(inputs, needs) if need]
        grads = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return [next(grads) if need else None for need in needs]


def _cast_grads(
    grads: tuple[Tensor | None, ...],
    inputs: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> list[Tensor | None]:
    """Return gradients in the dtype of what they are gradients of; None where not asked for."""
    return [g.to(t.dtype) if need else None for g, t, need in zip(grads, inputs, needs)]
