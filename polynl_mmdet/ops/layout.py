"""How the positions of a feature map lie in memory, so that no form has to copy it.

Poly-NL sees a set of positions: their order does not matter. Spatial axes may therefore be sorted
by stride, which turns transposed and channels_last maps into one plain (B, C, N) view.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .precision import accumulation_dtype


class Positions:
    """The layout of one (B, C, *spatial) tensor.

    Args:
        x (Tensor): (B, C, *spatial), at least one spatial axis, any strides.

    Attributes:
        count (int): N, the number of positions.
        merged (bool): Whether the positions are one axis of a (B, C, N) view of ``x`` in which
            positions or channels are next to each other in memory.
        channels_last (bool): Whether channels are next to each other in memory.
    """

    def __init__(self, x: Tensor) -> None:
        if x.is_contiguous() and not torch.compiler.is_compiling():
            # What nearly every feature map is; the general way takes as long as a small product.
            self._sizes = x.shape[2:]
            self.count = self._sizes.numel()
            self._sorted = self._one_axis = self.merged = True
            self.channels_last = False
            return
        spatial = range(2, x.dim())
        compiling = torch.compiler.is_compiling()  # a compiler places copies where it likes
        order = spatial if compiling else sorted(spatial, key=x.stride, reverse=True)
        self._order = (0, 1, *order)
        self._sorted = self._order == tuple(range(x.dim()))
        sorted_x = self._sort(x)
        self._sizes = sorted_x.shape[2:]
        self.count = prod(self._sizes)
        axes = [
            (size, stride) for size, stride in zip(self._sizes, sorted_x.stride()[2:]) if size != 1
        ]
        self._one_axis = compiling or all(
            outer[1] == inner[0] * inner[1] for outer, inner in zip(axes, axes[1:])
        )
        step = axes[-1][1] if axes else 1
        self.channels_last = x.stride(1) == 1 and step != 1
        self.merged = compiling or (self._one_axis and 1 in (step, x.stride(1)))

    def view(self, t: Tensor) -> Tensor:
        """Return (B, C, *spatial) as (B, C, N); a copy only if ``t`` has other strides than x."""
        return self._sort(t).flatten(2)

    def chunkable(self, t: Tensor) -> Tensor:
        """Return ``t`` in the order of ``view``, as (B, C, S, ...), to be split along axis 2."""
        t = self._sort(t)
        return t.flatten(2) if self._one_axis else t

    def restore(self, t: Tensor) -> Tensor:
        """Undo ``view`` or ``chunkable``, without a copy."""
        t = t.unflatten(2, self._sizes) if t.dim() == 3 else t
        if self._sorted:
            return t
        inverse = [self._order.index(axis) for axis in range(len(self._order))]
        return t.permute(inverse)

    def empty_like(self, t: Tensor) -> Tensor:
        """Return memory for a result like ``t``, itself a result of ``chunkable``."""
        if self.channels_last:
            return t.new_empty((t.shape[0], *t.shape[2:], t.shape[1])).movedim(-1, 1)
        return t.new_empty(t.shape)

    def _sort(self, t: Tensor) -> Tensor:
        return t if self._sorted else t.permute(self._order)


def chunk_spans(t: Tensor) -> list[tuple[int, int]]:
    """Return (start, length) along axis 2 of (B, C, S, ...), for scratch copies of bounded size.

    A chunk is about 4 MB on a CPU (it stays in the cache between its uses, and the allocator hands
    the same pages out again) and 256 MB elsewhere. A compiler gets one chunk, and no loop.
    """
    if torch.compiler.is_compiling():
        return [(0, t.shape[2])]
    budget = (4 if t.device.type == 'cpu' else 256) * 2**20
    one = t.shape[0] * t.shape[1] * prod(t.shape[3:]) * accumulation_dtype(t.dtype).itemsize
    length = max(1, budget // max(one, 1))
    return [(start, min(length, t.shape[2] - start)) for start in range(0, t.shape[2], length)]


def read_chunk(t: Tensor, span: tuple[int, int]) -> Tensor:
    """Return one chunk of (B, C, S, ...) as (B, C, n), in the dtype that sums are kept in."""
    return t.narrow(2, *span).flatten(2).to(accumulation_dtype(t.dtype))


def write_chunk(target: Tensor, span: tuple[int, int], chunk: Tensor) -> None:
    """Write (B, C, n) into its place in (B, C, S, ...)."""
    place = target.narrow(2, *span)
    place.copy_(chunk.reshape(place.shape))
