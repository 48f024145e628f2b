"""Poly-NL for any number of spatial axes.

Babiloni et al., "Poly-NL: Linear Complexity Non-local Layers With 3rd Order Polynomials",
ICCV 2021, https://arxiv.org/abs/2107.02859, Sec. 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_poly_nl_args


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

    Args:
        x (Tensor): (B, C, *spatial), one or more spatial axes, floating point.
        w1, w2, w3 (Tensor): (C, C), stored out x in.
        alpha, beta (Tensor): One element each.
        b1, b2, b3 (Tensor, optional): (C,). Defaults to None.
        method (str): 'auto', 'literal' or 'covariance': the order in which the same function is
            computed. Defaults to 'auto'.

    Returns:
        Tensor: Shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: Shapes that do not match, or an unknown ``method``.
    """
    check_poly_nl_args(x, w1, w2, w3, alpha, beta, b1, b2, b3, method)
    return _literal(x, w1, w2, w3, alpha, beta, b1, b2, b3)


def _literal(x, w1, w2, w3, alpha, beta, b1, b2, b3):
    """Channels stay the first matrix axis, as convolutions lay them out: no transposes."""
    columns = x.flatten(2)  # (B, C, N)
    left = _project(columns, w1, b1)
    right = _project(columns, w2, b2)
    context = (left * right).mean(dim=2, keepdim=True, dtype=_accumulator(x.dtype))
    y = _project(context.to(x.dtype) * columns, w3, b3)
    return (alpha.to(x.dtype) * columns + beta.to(x.dtype) * y).to(x.dtype).reshape(x.shape)


def _project(columns: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    projected = torch.matmul(weight.to(columns.dtype), columns)
    return projected if bias is None else projected + bias.to(columns.dtype)[:, None]


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
