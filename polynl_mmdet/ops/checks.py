"""Argument checks that every form of the operator shares."""

from __future__ import annotations

from torch import Tensor

METHODS = ('auto', 'literal', 'covariance')


def check_poly_nl_args(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    w3: Tensor,
    alpha: Tensor,
    beta: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    b3: Tensor | None,
    method: str,
) -> None:
    """Raise one clear error for arguments that the operator cannot take.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: ``x`` has no spatial axis, a weight, bias or scalar has another shape than the
            channels of ``x`` ask for, or ``method`` is unknown.
    """
    if method not in METHODS:
        raise ValueError(f'poly_nl: method={method!r}; accepted: {", ".join(METHODS)}')
    if not x.is_floating_point():
        raise TypeError(f'poly_nl: x has dtype {x.dtype}; accepted: a floating-point tensor')
    if x.dim() < 3:
        raise ValueError(
            f'poly_nl: x has shape {tuple(x.shape)}; accepted: (B, C, *spatial) with one or more '
            'spatial axes'
        )
    channels = x.shape[1]
    for name, weight in (('w1', w1), ('w2', w2), ('w3', w3)):
        if weight.shape != (channels, channels):
            raise ValueError(
                f'poly_nl: x has {channels} channels, but {name} has shape {tuple(weight.shape)}; '
                f'accepted: ({channels}, {channels})'
            )
    for name, bias in (('b1', b1), ('b2', b2), ('b3', b3)):
        if bias is not None and bias.shape != (channels,):
            raise ValueError(
                f'poly_nl: x has {channels} channels, but {name} has shape {tuple(bias.shape)}; '
                f'accepted: ({channels},)'
            )
    for name, scalar in (('alpha', alpha), ('beta', beta)):
        if scalar.numel() != 1:
            raise ValueError(
                f'poly_nl: {name} has shape {tuple(scalar.shape)}; accepted: one element'
            )
