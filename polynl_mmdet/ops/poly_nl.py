"""Poly-NL for any number of spatial axes.

Babiloni et al., "Poly-NL: Linear Complexity Non-Local Layers With 3rd Order Polynomials",
ICCV 2021, https://arxiv.org/abs/2107.02859, Sec. 3.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from . import covariance, literal
from .checks import check_poly_nl_args
from .cost import cheaper_method
from .covariance import Parameters
from .naive import poly_nl_reference
from .precision import HALF


def poly_nl(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    w3: Tensor,
    alpha: Tensor,
    beta: Tensor,
    b1: Tensor | None = None,
    b2: Tensor | None = None,
    b3: Tensor | None = None,
    *,
    method: str = 'auto',
) -> Tensor:
    """``Z = alpha X + beta ((Phi(X W1 + b1 (.) X W2 + b2) (.) X) W3 + b3)``.

    Phi is the mean over the N positions, (.) the element-wise product. Only ``x`` is kept for the
    backward pass, beside C x C matrices. Gradients of every argument are exact, and so are second
    ones (gradcheck and gradgradcheck pass): a backward pass that is itself recorded
    (``create_graph=True``) computes the layer again in operations that autograd knows, at several
    times the usual memory.

    Sums over positions are kept in float32 for 16-bit inputs, so float16 activations of any size
    stay finite as long as the result does. Under autocast ``x`` is cast to autocast's dtype, as a
    convolution's input is (float64 stays); weights are used in the dtype they have.

    While a graph is traced or exported (``torch.jit.trace``, ``torch.onnx``, ``torch.export``), the
    layer is a handful of plain operations. An input without any element gives an empty result, and
    zero gradients.

    Args:
        x (Tensor): (B, C, *spatial), one or more spatial axes, floating point, any strides.
        w1, w2, w3 (Tensor): (C, C), stored out x in.
        alpha, beta (Tensor): One element each.
        b1, b2, b3 (Tensor, optional): (C,). Defaults to None.
        method (str): The order in which the same function is computed. 'literal': three N C^2
            products forward and eight backward. 'covariance': two and three, and some C^3 ones.
            'auto': the cheaper by a measured model (cost.py). Defaults to 'auto'.

    Returns:
        Tensor: Shape, dtype and memory layout of ``x``; under autocast, autocast's dtype.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: Shapes that do not match, or an unknown ``method``.
    """
    tracing = torch.jit.is_tracing() or torch.compiler.is_exporting()
    with _quiet_tracer() if torch.jit.is_tracing() else nullcontext():
        check_poly_nl_args(x, w1, w2, w3, alpha, beta, b1, b2, b3, method)
        kind = x.device.type
        autocast = torch.is_autocast_enabled(kind)
        if autocast and x.dtype in (torch.float32, *HALF):
            x = x.to(torch.get_autocast_dtype(kind))
        # One element of any shape is a scalar from here on.
        p = Parameters(w1, w2, w3, alpha.reshape(()), beta.reshape(()), b1, b2, b3)
        with torch.autocast(kind, enabled=False) if autocast else nullcontext():
            if tracing:
                return covariance.plain(x, p)
            if x.numel() == 0:
                return poly_nl_reference(x, *p.to(x.dtype))
            wanted = torch.is_grad_enabled() and any(
                t is not None and t.requires_grad for t in (x, *p)
            )
            if method == 'auto':
                choose = cheaper_method if torch.compiler.is_compiling() else _remembered_method
                method = choose(x.shape, x.dtype, kind, wanted)
            if wanted:
                return _PolyNL.apply(method, x, *p)
            if method == 'literal':
                return literal.forward(x, p)
            return covariance.forward(x, p)[0]


_remembered_method = lru_cache(maxsize=1024)(cheaper_method)


class _PolyNL(torch.autograd.Function):
    """Either form, keeping only the input (and C x C matrices) for the backward pass."""

    @staticmethod
    def forward(ctx, method: str, x: Tensor, *params: Tensor | None) -> Tensor:
        p = Parameters(*params)
        ctx.method = method
        if method == 'literal':
            ctx.save_for_backward(x, *p)
            return _own(literal.forward(x, p))
        z, moments = covariance.forward(x, p)
        # Where S is larger than the input it is cheap to compute again.
        second = moments.second
        keep = second.numel() * second.itemsize <= x.numel() * x.itemsize
        ctx.save_for_backward(x, *p, *(moments if keep else ()))
        return _own(z)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        p, moments = Parameters(*rest[:8]), rest[8:]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return (None, *_differentiable_backward(grad, x, p, needs))
        kind = x.device.type
        autocast = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if autocast else nullcontext():
            if ctx.method == 'literal':
                grads = literal.backward(grad, x, p, needs)
            else:
                moments = covariance.Moments(*moments) if moments else covariance.moments(x, p)
                grads = covariance.backward(grad, x, p, moments, needs)
        return (None, *_as_given(grads, (x, *p), needs))


def _own(z: Tensor) -> Tensor:
    """``z`` as a tensor of its own: autograd forbids in-place work on a Function's view, and a
    bottleneck adds its residual in place."""
    return z.detach()


def _differentiable_backward(
    grad: Tensor, x: Tensor, p: Parameters, needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """The gradients as functions of all inputs that autograd can differentiate again."""
    # Views: one tensor given for two arguments must count as two.
    inputs = [None if t is None else t.view_as(t) for t in (x, *p)]
    kind = x.device.type
    with torch.autocast(kind, enabled=False):
        z = covariance.plain(inputs[0], Parameters(*inputs[1:]))
        wanted = [t for t, need in zip(inputs, needs) if need]
        grads = iter(torch.autograd.grad(z, wanted, grad, create_graph=True))
    return [next(grads) if need else None for need in needs]


def _as_given(
    grads: tuple[Tensor | None, ...],
    inputs: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> list[Tensor | None]:
    """Gradients in the dtype of what they are gradients of; None where not asked for."""
    return [g.to(t.dtype) if need else None for g, t, need in zip(grads, inputs, needs)]


@contextmanager
def _quiet_tracer():
    """Shapes are only checked, and never end in the graph: the tracer's warnings would be false."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        yield
