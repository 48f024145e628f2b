"""What the operator asks of a GPU, seen on fake CUDA tensors: no GPU is needed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from polynl_mmdet.ops import poly_nl
from polynl_mmdet.ops.compat import BMM_OUT_DTYPE
from polynl_mmdet.ops.products import apply_matrix, moment

B, C, H, W = 2, 8, 5, 6
N = H * W


class Recorder(TorchDispatchMode):
    """Counts products over positions by (dtype of the operands, of the result)."""

    def __init__(self) -> None:
        super().__init__()
        self.products = Counter()
        self.wide_copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        inputs = [a for a in args if isinstance(a, Tensor)]
        if 'mm' in function.overloadpacket.__name__ and any(N in a.shape for a in inputs):
            self.products[inputs[-1].dtype, out.dtype] += 1
        elif function is torch.ops.aten._to_copy.default:
            self.wide_copies += out.shape[1:].numel() >= C * N and out.dtype == torch.float32
        return out


@pytest.mark.skipif(not BMM_OUT_DTYPE, reason='this PyTorch has no torch.bmm(out_dtype=)')
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('method', ['moments', 'projections'])
def test_16_bits_make_no_float32_copy_of_a_map(method, dtype):
    with FakeTensorMode(), torch.no_grad():

        def cuda(*shape, dtype=torch.float32):
            return torch.empty(shape, dtype=dtype, device='cuda')

        x = cuda(B, C, H, W, dtype=dtype)
        with Recorder() as forward:
            poly_nl(x, *(cuda(C, C) for _ in range(3)), cuda(1), cuda(1), method=method)
        with Recorder() as backward:  # autograd needs a real device
            moment(x, x)
            apply_matrix(cuda(B, C, C), x, cuda())
    # What is summed over positions stays in float32: moments and projections.
    wide = 1 if method == 'moments' else 2
    assert forward.products == {(dtype, torch.float32): wide, (dtype, dtype): 1}
    assert backward.products == {(dtype, torch.float32): 1, (dtype, dtype): 1}
    assert forward.wide_copies == backward.wide_copies == 0
