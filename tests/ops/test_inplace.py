"""The result may be changed in place, as a bottleneck's ``out += identity`` does."""

from __future__ import annotations

import pytest
import torch

from polynl_mmdet.ops import poly_nl, poly_nl_reference

pytestmark = pytest.mark.usefixtures('device')


def arguments(shape, layout):
    x = torch.randn(shape, dtype=torch.float64)
    if layout == 'channels_last':
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == 'transposed':
        x = x.transpose(2, -1).contiguous().transpose(2, -1)
    elif layout == 'cropped':
        x = torch.randn(*shape[:-1], shape[-1] + 3, dtype=torch.float64)[..., 1:-2]
    channels = shape[1]
    parameters = [torch.randn(channels, channels, dtype=torch.float64) for _ in range(3)]
    parameters += [torch.randn(1, dtype=torch.float64) for _ in range(2)]
    return [t.requires_grad_() for t in (x.detach(), *parameters)]


@pytest.mark.parametrize('method', ['projections', 'moments'])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'transposed', 'cropped'])
@pytest.mark.parametrize('shape', [(2, 5, 7), (2, 5, 4, 6), (1, 3, 2, 3, 4)])
def test_addition_in_place(method, layout, shape):
    leaves = arguments(shape, layout)
    out = poly_nl(*leaves, method=method)
    out += leaves[0]
    out.relu_()
    expected = torch.relu(poly_nl_reference(*leaves) + leaves[0])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(out.square().sum(), leaves)
    want = torch.autograd.grad(expected.square().sum(), leaves)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
