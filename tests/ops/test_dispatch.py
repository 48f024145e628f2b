"""What the operator asks of a GPU, seen on fake CUDA tensors: no GPU is needed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from polynl_mmdet.ops.cost import BACKWARD, FORWARD, KEPT_PROJECTIONS, cheaper_method
from polynl_mmdet.ops.functions import FORMS
from polynl_mmdet.ops.parameters import Mixing, Projections

B, C, H, W = 2, 8, 5, 6
N = H * W
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


class Recorder(TorchDispatchMode):
    """Counts products by (over positions or channels, dtype of the operands, of the result)."""

    def __init__(self) -> None:
        super().__init__()
        self.products = Counter()
        self.wide_copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = [a for a in args if isinstance(a, Tensor)]
        if 'mm' in function.overloadpacket.__name__:
            kind = 'position' if any(N in a.shape for a in given) else 'channel'
            self.products[kind, given[-1].dtype, out.dtype] += 1
        elif function is torch.ops.aten._to_copy.default:
            self.wide_copies += N in out.shape and out.dtype == torch.float32
        return out

    def count(self, kind: str, operands: torch.dtype | None = None) -> int:
        return sum(
            n for key, n in self.products.items() if key[0] == kind and operands in (None, key[1])
        )


def trace(method: str, dtype: torch.dtype, channels: int = C) -> tuple[Recorder, Recorder]:
    """Record a forward and a backward pass."""
    form = FORMS[method]
    with FakeTensorMode(), torch.no_grad():

        def cuda(*shape, dtype=torch.float32):
            return torch.empty(shape, dtype=dtype, device='cuda')

        x, grad = (cuda(B, channels, H, W, dtype=dtype) for _ in range(2))
        square = (channels, channels)
        p = Projections(cuda(*square), cuda(*square), None, None)
        q = Mixing(cuda(*square), cuda(), cuda(), None)
        with Recorder() as forward:
            context, kept = form.context(x, p)
            form.mix(x, context, q)
        with Recorder() as backward:
            dx, d_context, *_ = form.mix_backward(grad, x, context, q, (True,) * 5 + (False,))
            needs = (True, True, True, False, False)
            form.context_backward(d_context, dx.to(dtype), x, p, kept, needs)
    return forward, backward


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('method', FORMS)
def test_the_cost_model_counts_what_runs(method, dtype):
    for found, work in zip(trace(method, dtype), (FORWARD[method], BACKWARD[method])):
        positions = work.position_products + work.second_moments + work.cross_moments
        assert found.count('position') == positions
        assert found.count('channel') == work.channel_products
        wide = {torch.float16: work.wide, torch.bfloat16: 0, torch.float32: positions}[dtype]
        assert found.count('position', torch.float32) == wide


@pytest.mark.parametrize('dtype', DTYPES)
def test_literal_keeps_its_projections_where_there_are_few_positions(dtype):
    _, backward = trace('literal', dtype, channels=N)
    products = BACKWARD['literal'].position_products - KEPT_PROJECTIONS
    assert sum(backward.products.values()) == products


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('compiling', [False, True])
def test_covariance_of_16_bits_makes_no_float32_copy_of_a_map(dtype, compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler, '_is_compiling_flag', compiling)
    forward, backward = trace('covariance', dtype)
    assert forward.wide_copies == backward.wide_copies == 0
    # The moments are summed in float32 and stay so.
    assert forward.products['position', dtype, torch.float32] == 1
    assert backward.products['position', dtype, torch.float32] == 1


def test_literal_of_float16_projects_to_float32_from_16_bit_operands():
    forward, _ = trace('literal', torch.float16)
    assert forward.wide_copies == 0
    assert forward.products == {
        ('position', torch.float16, torch.float32): 2,
        ('position', torch.float16, torch.float16): 1,
    }


def test_amp_takes_the_same_form_in_both_16_bit_types():
    """The site before the last block of res4, on two images of 800 x 1344."""
    for dtype in (torch.float16, torch.bfloat16):
        assert cheaper_method((2, 1024, 50, 84), dtype, 'cuda', True) == 'covariance'
