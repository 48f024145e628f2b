"""Export adaptive average pooling of maps of any size, which torch's ONNX tracer cannot.

It exports only windows of equal size. In general, bin i of r along an axis of L
pixels is the mean over [floor(i L / r), ceil((i + 1) L / r)): a product with an r x L matrix, which
the graph builds from L. SpatialBias, for example, pools maps of any size to a fixed grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.onnx.symbolic_helper import parse_args

OPSET = 17  # Of the exported files.


def _constant(g, value: list[int] | int):
    return g.op('Constant', value_t=torch.tensor(value, dtype=torch.int64))


def _bin_means(g, length, bins: int):
    """Return the r x L matrix for an axis of ``length`` (int64 scalar of the graph)."""
    index = list(range(bins))
    starts = g.op('Div', g.op('Mul', _constant(g, index), length), _constant(g, bins))
    ends = g.op('Mul', _constant(g, [i + 1 for i in index]), length)
    ends = g.op('Div', g.op('Add', ends, _constant(g, bins - 1)), _constant(g, bins))
    column = _constant(g, [1])
    starts, ends = (g.op('Unsqueeze', side, column) for side in (starts, ends))
    pixels = g.op('Range', _constant(g, 0), length, _constant(g, 1))
    inside = g.op('And', g.op('GreaterOrEqual', pixels, starts), g.op('Less', pixels, ends))
    inside = g.op('Cast', inside, to_i=1)  # FLOAT
    return g.op('Div', inside, g.op('Cast', g.op('Sub', ends, starts), to_i=1))


@parse_args('v', 'is')
def _pool(g, x, sides):
    """Symbolic of ``aten::adaptive_avg_pool2d``: rows @ x @ columns^T."""
    if list(sides) == [1, 1]:
        return g.op('GlobalAveragePool', x)
    shape = g.op('Shape', x)
    matrices = [
        _bin_means(g, g.op('Gather', shape, _constant(g, axis)), bins)
        for axis, bins in zip((2, 3), sides)
    ]
    columns = g.op('Transpose', matrices[1], perm_i=[1, 0])
    return g.op('MatMul', matrices[0], g.op('MatMul', x, columns))


@contextmanager
def exportable_adaptive_pooling() -> Iterator[None]:
    """Let ``torch.onnx.export`` of a traced graph write adaptive average pooling, inside."""
    torch.onnx.register_custom_op_symbolic('aten::adaptive_avg_pool2d', _pool, OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic('aten::adaptive_avg_pool2d', OPSET)
