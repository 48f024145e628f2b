"""Poly-NL as the formula reads: what the fast form is tested against.

Babiloni et al., "Poly-NL: Linear Complexity Non-Local Layers With 3rd Order Polynomials",
ICCV 2021, https://arxiv.org/abs/2107.02859, Sec. 3.
"""

from __future__ import annotations

from typing import Callable

from torch import Tensor


def poly_nl_reference(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    w3: Tensor,
    alpha: Tensor,
    beta: Tensor,
    b1: Tensor | None = None,
    b2: Tensor | None = None,
    b3: Tensor | None = None,
    context_norm: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Compute what :func:`~polynl_mmdet.ops.poly_nl` does, with the same arguments."""
    rows = x.flatten(2).transpose(1, 2)  # (B, N, C)
    left = rows @ w1.T if b1 is None else rows @ w1.T + b1
    right = rows @ w2.T if b2 is None else rows @ w2.T + b2
    context = (left * right).mean(dim=1)  # Phi: (B, C)
    if context_norm is not None:
        context = context_norm(context)
    y = (context[:, None] * rows) @ w3.T
    if b3 is not None:
        y = y + b3
    z = alpha * rows + beta * y
    return z.transpose(1, 2).reshape(x.shape)
