"""Which form of Poly-NL is cheaper: a model of its time with measured coefficients.

A form's time is the sum of four parts: products over the positions (N C^2), products of C x C
matrices (C^3), element-wise passes over the input and over such matrices, and a fixed overhead for
every operation. How many of each a form takes is known from its code; how fast they run is
measured: ``benchmarks/calibrate.py`` prints such a table for the machine it runs on. Only ratios
matter for the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch

from .precision import accumulation_dtype


class Rates(NamedTuple):
    """How fast one kind of device works in one dtype.

    Attributes:
        position_products (float): Floating-point operations a second in an N C^2 product.
        second_moment (float): Time of X^T X, relative to such a product.
        cross_moment (float): Time of the backward pass's G^T X, likewise.
        channel_products (float): Operations a second in products of C x C matrices.
        passes (float): Bytes a second in element-wise work, read and written counted alike.
        overhead (float): Seconds that an operation takes at least.
    """

    position_products: float
    second_moment: float
    cross_moment: float
    channel_products: float
    passes: float
    overhead: float


class Work(NamedTuple):
    """How many of each a form takes; passes over N x C and over C x C values.

    Of the position products, ``wide`` are done in float32 where the input is float16 on CUDA.
    """

    position_products: int
    wide: int
    second_moments: int
    cross_moments: int
    channel_products: int
    passes: int
    channel_passes: int
    operations: int


# Counted in literal.py and covariance.py.
FORWARD = {
    'literal': Work(3, 0, 0, 0, 0, 13, 0, 10),
    'covariance': Work(1, 0, 1, 0, 1, 0, 8, 14),
}
BACKWARD = {
    'literal': Work(8, 4, 0, 0, 0, 26, 0, 28),
    'covariance': Work(2, 0, 0, 1, 3, 0, 24, 30),
}
# Of literal's backward products those that it does without where it keeps its projections.
KEPT_PROJECTIONS = 2

# cpu: 2 cores of an AMD EPYC (Zen 4), torch 2.13, two threads, products by PyTorch's library.
# onednn: 2 cores of an AMD EPYC (Zen 5), where they go to oneDNN. Position products and moments are
# measured in every dtype; passes, which a cache makes ten times faster or slower, from both forms'
# times over a grid of shapes. benchmarks/calibrate.py measures them anew.
# CUDA: not measured; a data-centre GPU's data sheet, and every product at the same rate.
RATES = {
    ('cpu', torch.float32): Rates(1.8e11, 0.80, 0.95, 1.3e11, 3.0e10, 4e-6),
    ('cpu', torch.float64): Rates(9.0e10, 0.80, 1.0, 6.5e10, 3.0e10, 4e-6),
    ('cpu', torch.bfloat16): Rates(4.0e11, 1.6, 2.3, 1.3e11, 1.5e10, 4e-6),
    ('cpu', torch.float16): Rates(1.4e11, 0.60, 0.9, 1.3e11, 1.0e10, 4e-6),
    ('onednn', torch.float32): Rates(4.4e11, 0.85, 1.1, 4.4e11, 2.0e10, 2e-6),
    ('onednn', torch.float64): Rates(9.2e10, 0.68, 0.9, 9.3e10, 2.0e10, 7e-6),
    ('onednn', torch.bfloat16): Rates(7.9e11, 1.6, 2.3, 3.0e11, 1.2e10, 3e-6),
    ('onednn', torch.float16): Rates(4.0e11, 1.1, 1.1, 4.4e11, 1.2e10, 2e-6),
    ('cuda', torch.float32): Rates(4e13, 1.0, 1.0, 4e13, 2e12, 5e-6),
    ('cuda', torch.float64): Rates(2e13, 1.0, 1.0, 2e13, 2e12, 5e-6),
    ('cuda', torch.bfloat16): Rates(4e14, 1.0, 1.0, 4e13, 2e12, 5e-6),
    ('cuda', torch.float16): Rates(4e14, 1.0, 1.0, 4e13, 2e12, 5e-6),
}


def table_of(device_type: str, library: str = 'torch') -> str:
    """Return whose rates count: 'cpu', 'onednn' or, for devices without a table too, 'cuda'.

    Args:
        device_type (str): As in ``torch.device.type``.
        library (str): What multiplies on a CPU, 'torch' or 'onednn'. Defaults to 'torch'.
    """
    if device_type != 'cpu':
        return 'cuda'
    return 'onednn' if library == 'onednn' else 'cpu'


def table_rates(device_type: str, dtype: torch.dtype, library: str = 'torch') -> Rates:
    """Return the table's rates of a device and dtype; arguments as in :func:`table_of`."""
    table = table_of(device_type, library)
    return RATES.get((table, dtype)) or RATES[table, torch.float32]


def cheaper_method(
    shape: Sequence[int],
    dtype: torch.dtype,
    device_type: str,
    needs_grad: bool,
    rates: Rates | None = None,
) -> str:
    """Return 'literal' or 'covariance', whichever is expected to take less time.

    Args:
        shape (Sequence[int]): (B, C, *spatial).
        dtype (torch.dtype): What the layer computes in.
        device_type (str): As in ``torch.device.type``; devices without a table count as 'cuda'.
        needs_grad (bool): Whether a backward pass will follow.
        rates (Rates, optional): Defaults to None: the table's, on a CPU of PyTorch's library.

    Returns:
        str: The method.
    """
    literal = seconds('literal', shape, dtype, device_type, needs_grad, rates)
    covariance = seconds('covariance', shape, dtype, device_type, needs_grad, rates)
    return 'literal' if literal < covariance else 'covariance'


def seconds(
    method: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    device_type: str,
    needs_grad: bool,
    rates: Rates | None = None,
) -> float:
    """Return the modelled time of one forward (and backward) pass, as in cheaper_method."""
    rates = rates or table_rates(device_type, dtype)
    parts = [FORWARD[method]] + ([BACKWARD[method]] if needs_grad else [])
    work = Work(*(sum(counts) for counts in zip(*parts)))
    batch, channels = shape[0], shape[1]
    count = prod(shape[2:])
    operations = 2 * batch * count * channels**2
    position_product = operations / rates.position_products
    wide = work.wide if (table_of(device_type), dtype) == ('cuda', torch.float16) else 0
    wide_product = operations / RATES['cuda', torch.float32].position_products
    channel_product = 2 * batch * channels**3 / rates.channel_products
    one_pass = batch * channels * count * dtype.itemsize / rates.passes
    channel_pass = batch * channels**2 * accumulation_dtype(dtype).itemsize / rates.passes
    kept = method == 'literal' and needs_grad and count <= channels
    position_products = (
        work.position_products
        - (KEPT_PROJECTIONS if kept else 0)
        - wide
        + work.second_moments * rates.second_moment
        + work.cross_moments * rates.cross_moment
    )
    return (
        position_products * position_product
        + wide * wide_product
        + work.channel_products * channel_product
        + work.passes * one_pass
        + work.channel_passes * channel_pass
        + work.operations * rates.overhead
    )
