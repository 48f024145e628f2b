"""Large products on a CPU: split sums over positions, half of a symmetric product, oneDNN."""

from __future__ import annotations

from functools import lru_cache
from timeit import timeit

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .compat import is_compiling, is_exporting

_MIN_FLOPS_TO_SPLIT = 2e7  # of one sample's product
_MIN_FLOPS_FOR_ONEDNN = 4e6
_PIECE = 6 * 2**20  # values: 24 MiB


def uses_onednn(x: Tensor) -> bool:
    """Return whether products of (B, C, N) ``x`` go to oneDNN, not to PyTorch's own library."""
    return (
        x.dtype == torch.float32
        and x.device.type == 'cpu'
        and not (is_compiling() or is_exporting())
        and 2.0 * x.shape[2] * x.shape[1] ** 2 >= _MIN_FLOPS_FOR_ONEDNN
        and not torch.are_deterministic_algorithms_enabled()
        and _get_current_dispatch_mode() is None
        and onednn_is_faster()
    )


@lru_cache(maxsize=1)
def onednn_is_faster() -> bool:
    """Time ``a b^T`` of (256, 1024) with both libraries; oneDNN must be 1.2 x as fast."""
    a = torch.full((256, 1024), 0.5)
    runs = (lambda: torch.mm(a, a.t()), lambda: _linear(a, a))
    try:
        rounds = [[timeit(run, number=1) for run in runs] for _ in range(4)]
    except (AttributeError, RuntimeError):  # a build of PyTorch without oneDNN
        return False
    own, onednn = map(min, zip(*rounds))
    return onednn * 1.2 < own


def _linear(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a b^T`` by oneDNN, which is 100 x slower for a non-contiguous ``b``: copy it."""
    if not (b.is_contiguous() or b.t().is_contiguous()):
        b = b.contiguous()
    return torch.ops.mkldnn._linear_pointwise(a, b, None, 'none', [], '')


def cpu_product(matrix: Tensor, x: Tensor, add_to: Tensor | None = None) -> Tensor:
    """Return ``matrix x`` by oneDNN: (B, C, C), (B, C, N) -> (B, C, N) in the format of ``x``.

    With ``add_to`` it is added to that tensor in place. oneDNN allocates each result, and from
    32 MiB on glibc asks the kernel for new pages each time: results are copied or added in pieces
    of 24 MiB.
    """
    channels, count = x.shape[1:]
    last = x.stride(1) == 1
    if add_to is None and len(x) == 1:
        return (_linear(x[0].t(), matrix[0]).t() if last else _linear(matrix[0], x[0].t()))[None]
    out = add_to
    if out is None:
        out = x.new_empty(len(x), count, channels).transpose(1, 2) if last else x.new_empty(x.shape)
    combine = Tensor.copy_ if add_to is None else Tensor.add_
    step = max(32, _PIECE // (channels if last else count) // 32 * 32)
    for target, m, sample in zip(out, matrix, x):
        place, rows, other = (target.t(), sample.t(), m) if last else (target, m, sample.t())
        for part, piece in zip(place.split(step), rows.split(step)):
            combine(part, _linear(piece, other))
    return out


def cpu_moment(g: Tensor, x: Tensor) -> Tensor:
    """Return ``g x^T`` of (B, C, N); if ``g`` is ``x``, from the lower triangle of blocks."""
    batch, channels, count = x.shape
    if 2.0 * count * channels**2 < _MIN_FLOPS_TO_SPLIT:
        return torch.bmm(g, x.transpose(1, 2))
    onednn, last = uses_onednn(x), x.stride(1) == 1
    blocks = 4 if channels >= (512 if onednn else 128) else 2 if channels >= 64 else 1
    if g is not x or (onednn and last):  # oneDNN would copy blocks of channels-last maps
        blocks = 1
    height = -(-channels // blocks)
    out = x.new_empty(batch, channels, channels)
    for sample in range(batch):
        for top in range(0, channels, height):
            rows = slice(top, top + height)
            columns = slice(None) if blocks == 1 else slice(0, top + height)
            a, b = g[sample, rows], x[sample, columns]
            if not onednn:
                part = _outer(a, b)
            elif last:  # as the weight gradient of a 1 x 1 convolution: 1.5 x as fast
                b, a = (t.t()[None, :, None].permute(0, 3, 1, 2) for t in (b, a))
                part = conv2d_weight(b, (a.shape[1], channels, 1, 1), a)[:, :, 0, 0]
            else:
                part = _linear(a, b)
            out[sample, rows, columns] = part
            if top:
                out[sample, :top, rows] = part[:, :top].t()
    return out


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a b^T`` of (R, N) and (C, N) as a sum of sums over parts of the positions."""
    count = a.shape[1]
    splits = max(1, min(4 if len(b) >= 128 else 8, count // max(256, len(b))))
    if splits == 1:
        return a @ b.t()
    length = count // splits
    whole = length * splits
    left, right = (t[:, :whole].unflatten(1, (splits, length)).transpose(0, 1) for t in (a, b))
    out = torch.bmm(left, right.transpose(1, 2)).sum(0)
    return out if whole == count else out.addmm_(a[:, whole:], b[:, whole:].t())
