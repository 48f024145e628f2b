"""Which library multiplies matrices on a CPU: PyTorch's own, often MKL, or oneDNN.

Either can be twice as fast as the other in float32, and no processor's name tells which. A process
times both at its first large product, for some milliseconds. oneDNN is taken where it is clearly
ahead, so that one machine decides alike each time; sums are rounded in another order in each, so
that whoever needs the same bits in another process asks :func:`product_library` here and calls
:func:`set_product_library` there, or sets the environment variable ``POLYNL_PRODUCTS``.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight
from torch.utils._python_dispatch import _get_current_dispatch_mode

LIBRARIES = ('auto', 'torch', 'onednn')
# How much faster oneDNN must be, and from how many floating-point operations on it is asked: of
# smaller products its calls, some 10 microseconds each, take a larger part.
_MARGIN = 1.2
_LEAST_OPERATIONS = 4e6

_requested = os.environ.get('POLYNL_PRODUCTS', 'auto')


def set_product_library(name: str) -> None:
    """Choose the library of this process's float32 products on a CPU.

    Args:
        name (str): 'torch', 'onednn', or 'auto' for the faster one.

    Raises:
        ValueError: ``name`` is none of these.
    """
    global _requested
    _requested = _checked(name)


def product_library() -> str:
    """Return 'torch' or 'onednn': what was set, or else what is faster here."""
    name = _checked(_requested)
    return _faster_library() if name == 'auto' else name


def library_in_use(device_type: str) -> str:
    """Return the library of products on a device now, 'torch' or 'onednn'.

    Under a compiler, and under a dispatch mode that counts or fakes operations, it is 'torch', and
    nothing is measured.
    """
    plain = not torch.compiler.is_compiling() and _get_current_dispatch_mode() is None
    return product_library() if plain and device_type == 'cpu' else 'torch'


def uses_onednn(x: Tensor) -> bool:
    """Return whether products of (B, C, N) ``x`` go to oneDNN."""
    return (
        x.dtype == torch.float32
        and library_in_use(x.device.type) == 'onednn'
        and 2.0 * x.shape[2] * x.shape[1] ** 2 >= _LEAST_OPERATIONS
    )


def onednn_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a b^T`` of (M, K) and (N, K), of any strides, as a contiguous (M, N).

    Of ``b`` with gaps or repetitions in memory (a crop, the gradient of a sum) oneDNN makes the
    product some hundred times slower than of a copy.
    """
    if not (b.is_contiguous() or b.t().is_contiguous()):
        b = b.contiguous()
    return torch.ops.mkldnn._linear_pointwise(a, b, None, 'none', [], '')


def onednn_moment(g: Tensor, x: Tensor) -> Tensor:
    """Return ``g x^T`` of two (C, N) whose positions, or channels, are next to each other in both.

    Of channels-last maps it is the weight gradient of a 1 x 1 convolution, for which oneDNN has
    code of its own: 1.5 times as fast as its product of the two transposed views.
    """
    if x.stride(1) == 1:
        return onednn_product(g, x)
    maps = [t.t()[None, :, None].permute(0, 3, 1, 2) for t in (x, g)]  # (1, C, N, 1)
    return conv2d_weight(maps[0], (g.shape[0], x.shape[0], 1, 1), maps[1])[:, :, 0, 0]


def same_layout(g: Tensor, x: Tensor) -> bool:
    """Return whether positions, or channels, are next to each other in both (B, C, N)."""
    return g.stride(2) == x.stride(2) == 1 or g.stride(1) == x.stride(1) == 1


def _checked(name: str) -> str:
    if name not in LIBRARIES:
        raise ValueError(
            f'poly_nl: product library {name!r} (from POLYNL_PRODUCTS or set_product_library); '
            f'accepted: {", ".join(LIBRARIES)}'
        )
    return name


@lru_cache(maxsize=1)
def _faster_library() -> str:
    """Time ``a b^T`` of (256, 1024) by both libraries, in turns, and compare the least times."""
    a = torch.full((256, 1024), 0.5)
    runs = {'torch': lambda: torch.mm(a, a.t()), 'onednn': lambda: onednn_product(a, a)}
    least = dict.fromkeys(runs, float('inf'))
    try:
        with torch.no_grad():
            for _ in range(4):
                for name, run in runs.items():
                    before = time.perf_counter()
                    run()
                    least[name] = min(least[name], time.perf_counter() - before)
    except (AttributeError, RuntimeError):  # a build of PyTorch without oneDNN
        return 'torch'
    return 'onednn' if least['onednn'] * _MARGIN < least['torch'] else 'torch'
