"""What Poly-NL learns, in the two groups that its two steps take, and the check of their shapes."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor


class Projections(NamedTuple):
    """What turns the input into the context: weights (C, C), out x in; biases (C,) or None."""

    w1: Tensor
    w2: Tensor
    b1: Tensor | None
    b2: Tensor | None


class Mixing(NamedTuple):
    """What turns input and context into Z: weight (C, C), scalars (), bias (C,) or None."""

    w3: Tensor
    alpha: Tensor
    beta: Tensor
    b3: Tensor | None


Group = TypeVar('Group', Projections, Mixing)


def group_parameters(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    w3: Tensor,
    alpha: Tensor,
    beta: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    b3: Tensor | None,
) -> tuple[Projections, Mixing]:
    """Check the operator's tensors against each other and group them.

    Args:
        x (Tensor): (B, C, *spatial), floating point.
        w1, w2, w3 (Tensor): (C, C).
        alpha, beta (Tensor): One element of any shape.
        b1, b2, b3 (Tensor, optional): (C,).

    Returns:
        tuple[Projections, Mixing]: The same tensors, alpha and beta without axes.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: ``x`` has no spatial axis, or a weight, bias or scalar has another shape than
            the channels of ``x`` ask for.
    """
    if not x.is_floating_point():
        raise TypeError(f'poly_nl: x has dtype {x.dtype}; accepted: a floating-point tensor')
    if x.dim() < 3:
        raise ValueError(
            f'poly_nl: x has shape {tuple(x.shape)}; accepted: (B, C, *spatial) with one or more '
            'spatial axes'
        )
    channels = x.shape[1]
    for name, tensor, accepted in (
        ('w1', w1, (channels, channels)),
        ('w2', w2, (channels, channels)),
        ('w3', w3, (channels, channels)),
        ('b1', b1, (channels,)),
        ('b2', b2, (channels,)),
        ('b3', b3, (channels,)),
    ):
        if tensor is not None and tensor.shape != accepted:
            raise ValueError(
                f'poly_nl: x has {channels} channels, but {name} has shape {tuple(tensor.shape)}; '
                f'accepted: {accepted}'
            )
    for name, scalar in (('alpha', alpha), ('beta', beta)):
        if scalar.numel() != 1:
            raise ValueError(
                f'poly_nl: {name} has shape {tuple(scalar.shape)}; accepted: one element'
            )
    return Projections(w1, w2, b1, b2), Mixing(w3, alpha.reshape(()), beta.reshape(()), b3)


def cast(group: Group, dtype: torch.dtype) -> Group:
    """Return the group with every tensor in ``dtype``."""
    return type(group)(*(t if t is None or t.dtype == dtype else t.to(dtype) for t in group))
