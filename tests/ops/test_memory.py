"""What the operator keeps for the backward pass."""

from __future__ import annotations

import pytest
import torch
from poly_nl_cases import LAYOUTS, make_input, make_params, with_norm

from polynl_mmdet.ops import poly_nl

pytestmark = pytest.mark.usefixtures('device')


def kept_bytes(x, params):
    """Bytes of distinct memory that the graph keeps, parameters aside."""
    aside = {p.untyped_storage().data_ptr() for p in params if p is not None}
    kept = {}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in aside:
            kept[storage.data_ptr()] = min(storage.nbytes(), t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        z = with_norm(poly_nl)(x, *params)
    assert z.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize('layout', [n for n in LAYOUTS if n != 'expanded_batch'])
@pytest.mark.parametrize(
    ('channels', 'side', 'limit'),
    # The last has few positions; the formula in convolutions and autograd keeps 5.
    [(16, 16, 1.25), (32, 24, 1.25), (32, 40, 1.2), (64, 7, 5.1)],
)
def test_input_is_kept_once(channels, side, limit, layout):
    x = make_input((2, channels, side, side), layout, dtype=torch.float32)
    params = make_params(channels, True, True, torch.float32)
    size = x.numel() * x.element_size()
    assert size <= kept_bytes(x, params) <= limit * size
