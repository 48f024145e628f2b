"""The N x C x C matrix products that Poly-NL is made of, each over a batch of (B, C, N) views.

All take positions-last and channels-last views alike, without copies. On a CPU two things are
exploited (figures: docs/benchmarks.md): a sum over very many positions runs faster as a few sums
side by side, and a second moment is symmetric, so only its lower triangle of blocks is computed.
Wide products go to oneDNN where that is the faster library.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .cpu_library import onednn_moment, onednn_product, same_layout, uses_onednn
from .layout import Positions, chunk_spans, read_chunk
from .precision import SIXTEEN_BIT, accumulation_dtype

# A product below this many floating-point operations a sample is over before slicing pays.
_WORTH_SLICING = 2e7
# Splits of the sum over positions (narrow products take more), and the least positions in one.
_SPLITS = 4
_NARROW, _NARROW_SPLITS = 128, 8
_POSITIONS_A_SPLIT = 256
# Values in a piece of a result that is added to or copied to another: 24 MiB. From 32 MiB on, glibc
# asks the kernel for new pages each time, which takes as long as the product.
_PIECE = 6 * 2**20
_CUDA_WIDENS = torch.version.hip is None and hasattr(torch.ops.aten.bmm, 'dtype')


def is_single_sample(x: Tensor) -> bool:
    """Return whether ``x`` is one sample, whose products run faster without the batch axis.

    A compiler is always given the axis: it would make another program for a batch of one.
    """
    return x.shape[0] == 1 and not torch.compiler.is_compiling()


def widens_products(x: Tensor) -> bool:
    """Return whether products of 16-bit ``x`` can give their float32 sums unrounded: on CUDA."""
    return _CUDA_WIDENS and x.is_cuda and x.dtype in SIXTEEN_BIT


def multiply(
    matrix: Tensor, x: Tensor, channels_last: bool, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Return ``matrix @ x`` for every sample.

    Args:
        matrix (Tensor): (B, C, C), out x in.
        x (Tensor): (B, C, N), any layout.
        channels_last (bool): Which of the two layouts the result takes.
        out_dtype (torch.dtype, optional): Another dtype than that of ``x`` takes what
            :func:`widens_products` tells. Defaults to None.

    Returns:
        Tensor: (B, C, N).
    """
    if out_dtype not in (None, x.dtype):
        if channels_last:
            rows = torch.bmm(x.transpose(1, 2), matrix.transpose(1, 2), out_dtype=out_dtype)
            return rows.transpose(1, 2)
        return torch.bmm(matrix, x, out_dtype=out_dtype)
    if uses_onednn(x):
        if x.shape[0] > 1:
            out = x.new_empty(x.transpose(1, 2).shape if channels_last else x.shape)
            out = out.transpose(1, 2) if channels_last else out
            return _combine_onednn(Tensor.copy_, out, matrix, x, channels_last)
        if channels_last:
            return onednn_product(x[0].t(), matrix[0]).t()[None]
        return onednn_product(matrix[0], x[0].t())[None]
    if is_single_sample(x):
        if channels_last:
            return torch.mm(x[0].t(), matrix[0].t()).t()[None]
        return torch.mm(matrix[0], x[0])[None]
    if channels_last:
        return torch.bmm(x.transpose(1, 2), matrix.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(matrix, x)


def add_product_(target: Tensor, matrix: Tensor, x: Tensor, channels_last: bool) -> Tensor:
    """Add ``matrix @ x`` to ``target`` in place; shapes as in :func:`multiply`."""
    if uses_onednn(x):
        return _combine_onednn(Tensor.add_, target, matrix, x, channels_last)
    if is_single_sample(x):
        if channels_last:
            target[0].t().addmm_(x[0].t(), matrix[0].t())
        else:
            target[0].addmm_(matrix[0], x[0])
    elif channels_last:
        target.transpose(1, 2).baddbmm_(x.transpose(1, 2), matrix.transpose(1, 2))
    else:
        target.baddbmm_(matrix, x)
    return target


def _combine_onednn(
    combine: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    matrix: Tensor,
    x: Tensor,
    channels_last: bool,
) -> Tensor:
    """Copy or add ``matrix @ x`` to (B, C, N), in pieces small enough for memory to be reused.

    oneDNN gives each piece in memory of its own.
    """
    channels, count = x.shape[1:]
    length = _PIECE // (channels if channels_last else count)
    step = max(1, length) if channels_last else max(32, length // 32 * 32)
    whole = step >= (count if channels_last else channels)
    for t, m, s in zip(target, matrix, x):
        # The rows of a product a b^T and of its place.
        place, a, b = (t.t(), s.t(), m) if channels_last else (t, m, s.t())
        if whole:
            combine(place, onednn_product(a, b))
            continue
        for part, rows in zip(place.split(step), a.split(step)):
            combine(part, onednn_product(rows, b))
    return target


def cross_moment(g: Tensor, x: Tensor, layout: Positions) -> Tensor:
    """Return ``sum_n g_n x_n^T`` for every sample, summed in float32 or better.

    Args:
        g (Tensor): (B, C, *spatial).
        x (Tensor): (B, C, *spatial), whose layout is ``layout``; may be ``g`` itself.
        layout (Positions): Layout of ``x``.

    Returns:
        Tensor: (B, C, C), the channels of ``g`` first; float32 for 16-bit inputs, else their dtype.
    """
    symmetric = g is x
    acc = accumulation_dtype(x.dtype)
    if layout.merged and widens_products(x):
        return torch.bmm(layout.view(g), layout.view(x).transpose(1, 2), out_dtype=acc)
    if torch.compiler.is_compiling():
        g, x = layout.view(g).to(acc), layout.view(x).to(acc)
        return torch.bmm(g, x.transpose(1, 2))
    if layout.merged and acc == x.dtype:
        x = layout.view(x)
        return _cross_moment_of_view(x if symmetric else layout.view(g), x)
    xs = layout.chunkable(x)
    gs = xs if symmetric else layout.chunkable(g)
    total = None
    for span in chunk_spans(xs):
        chunk = read_chunk(xs, span)
        part = _cross_moment_of_view(chunk if symmetric else read_chunk(gs, span), chunk)
        total = part if total is None else total.add_(part)
    return total


def _cross_moment_of_view(g: Tensor, x: Tensor) -> Tensor:
    """Return cross_moment of (B, C, N) views whose dtype is wide enough to sum in."""
    batch, channels, count = x.shape
    sliced = x.device.type == 'cpu' and 2.0 * count * channels**2 >= _WORTH_SLICING
    if not sliced:
        return torch.bmm(g, x.transpose(1, 2))
    most = _SPLITS if channels >= _NARROW else _NARROW_SPLITS
    splits = max(1, min(most, count // max(_POSITIONS_A_SPLIT, channels)))
    out = x.new_empty(batch, channels, channels)
    onednn = uses_onednn(x) and same_layout(g, x)
    write = _write_onednn_moment if onednn else partial(_write_product, splits=splits)
    blocks = 4 if channels >= (512 if onednn else 128) else 2 if channels >= 64 else 1
    for sample in range(batch):
        # Blocks of channels-last maps have gaps, which oneDNN would copy.
        if g is x and not (onednn and x.stride(2) != 1):
            _write_second_moment(x[sample], out[sample], blocks, write)
        else:
            write(g[sample], x[sample], out[sample])
    return out


def left_multiply(weight: Tensor, matrices: Tensor) -> Tensor:
    """Return ``weight @ matrices``: (C, C), (B, C, C) -> (B, C, C)."""
    if uses_onednn(matrices):
        products = [onednn_product(weight, matrix.t()) for matrix in matrices]
        return products[0][None] if len(products) == 1 else torch.stack(products)
    if is_single_sample(matrices):
        return torch.mm(weight, matrices[0])[None]
    return torch.matmul(weight, matrices)


def _write_second_moment(
    x: Tensor, out: Tensor, blocks: int, write: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> None:
    """Write ``x x^T`` to (C, C): rows of blocks up to the diagonal, the rest mirrored."""
    channels = x.shape[0]
    height = -(-channels // blocks)
    for top in range(0, channels, height):
        end = min(top + height, channels)
        part = write(x[top:end], x[:end], out[top:end, :end])
        if top:
            out[:top, top:end] = part[:, :top].t()


def _write_onednn_moment(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Write ``a b^T`` of (R, N) and (C, N) to (R, C)."""
    return out.copy_(onednn_moment(a, b))


def _write_product(a: Tensor, b: Tensor, out: Tensor, splits: int) -> Tensor:
    """Write ``a b^T`` of (R, N) and (C, N) to (R, C), as sums over parts of the positions."""
    if splits == 1:
        return torch.mm(a, b.t(), out=out)
    length = a.shape[1] // splits
    whole = length * splits
    left = a[:, :whole].unflatten(1, (splits, length)).transpose(0, 1)
    right = b[:, :whole].unflatten(1, (splits, length)).permute(1, 2, 0)
    torch.sum(torch.bmm(left, right), 0, out=out)
    if whole < a.shape[1]:
        out.addmm_(a[:, whole:], b[:, whole:].t())
    return out
