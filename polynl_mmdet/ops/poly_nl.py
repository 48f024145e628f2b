"""Poly-NL for any number of spatial axes.

Babiloni et al., "Poly-NL: Linear Complexity Non-Local Layers With 3rd Order Polynomials",
ICCV 2021, https://arxiv.org/abs/2107.02859, Sec. 3.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from . import traceable
from .cost import cheaper_method
from .cpu_library import library_in_use
from .functions import FORMS, Context, Mix
from .measured_rates import rates_in_use
from .naive import poly_nl_reference
from .parameters import group_parameters
from .precision import SIXTEEN_BIT, accumulation_dtype

METHODS = ('auto', *FORMS)


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
    context_norm: Callable[[Tensor], Tensor] | None = None,
    method: str = 'auto',
) -> Tensor:
    """Compute ``Z = alpha X + beta ((Norm(Phi(X W1 + b1 (.) X W2 + b2)) (.) X) W3 + b3)``.

    Phi is the mean over the N positions, (.) the element-wise product. Without ``context_norm`` it
    is the paper's formula. Only ``x`` is kept for the backward pass, beside C x C matrices.
    Gradients of every argument are exact, and so are second ones (gradcheck and gradgradcheck
    pass): a backward pass that is itself recorded (``create_graph=True``) computes the layer again
    in operations that autograd knows, at several times the usual memory.

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
        context_norm (Callable, optional): What normalises the context: any differentiable function
            (B, C) -> (B, C), such as a ``torch.nn.LayerNorm(C)``. It is called once, outside
            autocast, with float32 for 16-bit inputs and else the dtype of ``x``. Defaults to None.
        method (str): The order in which the same function is computed. 'literal': three N C^2
            products forward and eight backward. 'covariance': two and three, and some C^3 ones.
            'auto': the cheaper by a measured model (cost.py). Defaults to 'auto'.

    Returns:
        Tensor: Shape, dtype and memory layout of ``x``; under autocast, autocast's dtype.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: Shapes that do not match, or an unknown ``method``.
    """
    if method not in METHODS:
        raise ValueError(f'poly_nl: method={method!r}; accepted: {", ".join(METHODS)}')
    tracing = torch.jit.is_tracing() or torch.compiler.is_exporting()
    with _ignore_tracer_warnings() if torch.jit.is_tracing() else nullcontext():
        p, q = group_parameters(x, w1, w2, w3, alpha, beta, b1, b2, b3)
        kind = x.device.type
        autocast = torch.is_autocast_enabled(kind)
        if autocast and x.dtype in (torch.float32, *SIXTEEN_BIT):
            x = x.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False) if autocast else nullcontext():
            norm = _identity if context_norm is None else context_norm
            if tracing:
                return traceable.mix(x, norm(traceable.context(x, p)), q)
            if x.numel() == 0:
                acc = accumulation_dtype(x.dtype)
                given = (w1, w2, w3, alpha, beta, b1, b2, b3)
                given = (None if t is None else t.to(x.dtype) for t in given)
                # The mean over no positions is NaN: 0 keeps a norm's gradients finite.
                return poly_nl_reference(
                    x, *given, lambda a: norm(a.nan_to_num().to(acc)).to(a.dtype)
                )
            if method == 'auto':
                wanted = torch.is_grad_enabled() and any(
                    t is not None and t.requires_grad for t in (x, *p, *q)
                )
                case = (x.shape, x.dtype, kind, wanted)
                if torch.compiler.is_compiling():
                    method = cheaper_method(*case)
                else:
                    method = _cached_method(*case, library_in_use(kind))
            if torch.is_grad_enabled():
                context, x = Context.apply(method, x, *p)
                return Mix.apply(method, x, norm(context), *q)
            form = FORMS[method]
            context = form.context(x, p)[0]  # what it keeps besides is released
            return form.mix(x, norm(context), q)


def _identity(context: Tensor) -> Tensor:
    return context


@lru_cache(maxsize=1024)
def _cached_method(
    shape: torch.Size, dtype: torch.dtype, device_type: str, needs_grad: bool, library: str
) -> str:
    rates = rates_in_use(device_type, dtype, library)
    return cheaper_method(shape, dtype, device_type, needs_grad, rates)


@contextmanager
def _ignore_tracer_warnings():
    """Ignore the tracer's warnings: shapes are only checked, and never end in the graph."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        yield
