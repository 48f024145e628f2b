"""Poly-NL for any number of spatial axes.

Babiloni et al., "Poly-NL: Linear Complexity Non-Local Layers With 3rd Order Polynomials",
ICCV 2021, https://arxiv.org/abs/2107.02859, Sec. 3. docs/layer.md derives the fast form.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .compat import autocast_dtype, is_exporting
from .products import apply_matrix, dense, second_moment, wide_dtype


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
    """Compute ``Z = alpha X + beta ((norm(Phi(X W1 + b1 * X W2 + b2)) * X) W3 + b3)``.

    Phi is the mean over the N positions, * the element-wise product. Without ``context_norm`` this
    is the paper's formula. Sums over positions are in float32 for 16-bit inputs. Under autocast
    ``x`` is cast as a convolution's input is.

    Args:
        x (Tensor): (B, C, *spatial), floating point, any strides.
        w1, w2, w3 (Tensor): (C, C), stored (out, in).
        alpha, beta (Tensor): One element each.
        b1, b2, b3 (Tensor, optional): (C,). Defaults to None.
        context_norm (Callable, optional): Norm of the context, (B, C) -> (B, C); it gets float32
            for 16-bit inputs. Defaults to None.
        method (str): 'moments' computes the context from ``X^T X``: two N C^2 products and a C^3
            one. 'projections' computes X W1 and X W2 as published: three N C^2 products. 'auto'
            takes 'projections' where N < C (N < 2 C in 16 bits on a CPU), 'moments' elsewhere and
            whenever a graph is exported. Defaults to 'auto'.

    Returns:
        Tensor: Shape, dtype and memory format of ``x``; under autocast, autocast's dtype.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: Shapes do not match, or ``method`` is unknown.
    """
    if not torch.jit.is_tracing():  # a tracer warns of every shape that is compared
        _check(x, method, w1=w1, w2=w2, w3=w3, alpha=alpha, beta=beta, b1=b1, b2=b2, b3=b3)
    autocast = autocast_dtype(x.device.type)
    if autocast is not None and x.dtype != torch.float64:
        x = x.to(autocast)
    with nullcontext() if autocast is None else torch.autocast(x.device.type, enabled=False):
        tensors = (w1, w2, w3, alpha.reshape(()), beta.reshape(()), b1, b2, b3)
        wide = wide_dtype(x.dtype)
        w1, w2, w3, alpha, beta, b1, b2, b3 = [None if t is None else t.to(wide) for t in tensors]
        x = dense(x)
        if projects := _uses_projections(x, method):
            context = (_project(x, w1, b1) * _project(x, w2, b2)).flatten(2).mean(2)
        else:
            context, x = _context_by_moments(x, w1, w2, b1, b2)
        if context_norm is not None:
            context = context_norm(context)
        context = beta * context
        b3 = None if b3 is None else beta * b3
        if projects and x.dtype == wide:
            return torch.addcmul(_project(_per_channel(context, x) * x, w3, b3), x, alpha)
        z = apply_matrix(w3.unsqueeze(0) * context.unsqueeze(1), x, alpha)
        return z if b3 is None else z + _per_channel(b3.to(z.dtype), x)


def _uses_projections(x: Tensor, method: str) -> bool:
    if is_exporting():  # sizes may change
        return method == 'projections'
    half_on_cpu = x.device.type == 'cpu' and x.dtype != wide_dtype(x.dtype)
    few = x.shape[2:].numel() < x.shape[1] * (2 if half_on_cpu else 1)
    return (method == 'projections' or (method == 'auto' and few)) and x.numel() > 0


def _context_by_moments(x, w1, w2, b1, b2):
    """Return the context (B, C), ``a_c = w1_c^T S w2_c`` with ``S = X^T X / N``, and ``x``."""
    count = x.flatten(2).shape[2]
    scale = 1.0 / (count if is_exporting() else max(count, 1))
    second, x = second_moment(x)
    left = apply_matrix(w1.expand(second.shape[0], -1, -1), second)
    context = (left * w2).sum(2) * scale
    for bias, weight in ((b1, w2), (b2, w1)):
        if bias is not None:
            mean = x.flatten(2).sum(2, dtype=weight.dtype) * scale
            context = torch.addcmul(context, mean @ weight.t(), bias)
    return context if b1 is None or b2 is None else torch.addcmul(context, b1, b2), x


def _project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``X W + b``, (B, C, *spatial) in the weight's dtype."""
    if x.dtype == weight.dtype:
        maps = x if x.dim() == 4 else x.flatten(2).unsqueeze(2)
        return F.conv2d(maps, weight[:, :, None, None], bias).reshape(x.shape)
    y = apply_matrix(weight.expand(x.shape[0], -1, -1), x, widen=True)
    return y if bias is None else y + _per_channel(bias, x)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return (C,) or (B, C) values with axes of one for the spatial ones of ``x``."""
    return values.reshape(values.shape + (1,) * (x.dim() - 2))


def _check(x: Tensor, method: str, alpha: Tensor, beta: Tensor, **tensors: Tensor | None) -> None:
    if method not in ('auto', 'moments', 'projections'):
        raise ValueError(f'poly_nl: got method {method!r}, expected auto, moments or projections')
    if not x.is_floating_point():
        raise TypeError(f'poly_nl: got x of dtype {x.dtype}, expected floating point')
    if x.dim() < 3:
        raise ValueError(f'poly_nl: got x of shape {tuple(x.shape)}, expected (B, C, *spatial)')
    c = x.shape[1]
    for name, tensor in tensors.items():
        expected = (c, c) if name[0] == 'w' else (c,)
        if tensor is not None and tensor.shape != expected:
            shapes = f'{name} of shape {tuple(tensor.shape)} for x of shape {tuple(x.shape)}'
            raise ValueError(f'poly_nl: got {shapes}, expected {expected}')
    if alpha.numel() != 1 or beta.numel() != 1:
        shapes = f'alpha of shape {tuple(alpha.shape)} and beta of shape {tuple(beta.shape)}'
        raise ValueError(f'poly_nl: got {shapes}, expected one element each')
