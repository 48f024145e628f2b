"""Poly-NL in a handful of plain operations, for tracers and for differentiating twice."""

from __future__ import annotations

import torch
from torch import Tensor

from .parameters import Mixing, Projections, cast
from .precision import accumulation_dtype


def context(x: Tensor, p: Projections) -> Tensor:
    """Compute the context (B, C) of (B, C, *spatial), in float32 or better."""
    acc = accumulation_dtype(x.dtype)
    p = cast(p, acc)
    columns = x.flatten(2).to(acc)
    count = columns.shape[2]
    second = torch.matmul(columns, columns.transpose(1, 2))
    context = (torch.matmul(p.w1, second) * p.w2).sum(2) * (1.0 / count)
    if p.b1 is None and p.b2 is None:
        return context
    mean = columns.mean(2)
    if p.b1 is not None:
        context = context + p.b1 * (mean @ p.w2.t())
    if p.b2 is not None:
        context = context + p.b2 * (mean @ p.w1.t())
    if p.b1 is not None and p.b2 is not None:
        context = context + p.b1 * p.b2
    return context


def mix(x: Tensor, context: Tensor, q: Mixing) -> Tensor:
    """Compute ``Z = (alpha I + beta W3 diag(a)) x + beta b3``, like ``x``."""
    acc = context.dtype
    q = cast(q, acc)
    columns = x.flatten(2)
    matrix = q.w3 * (q.beta * context)[:, None, :]
    if acc == x.dtype:
        matrix = matrix + q.alpha * torch.eye(x.shape[1], dtype=acc, device=x.device)
        z = torch.matmul(matrix, columns)
    else:
        z = torch.matmul(matrix.to(x.dtype), columns) + q.alpha.to(x.dtype) * columns
    if q.b3 is not None:
        z = z + (q.beta * q.b3).to(x.dtype)[:, None]
    return z.reshape(x.shape)
