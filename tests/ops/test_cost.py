"""The choice between the forms."""

from __future__ import annotations

import pytest
import torch

from polynl_mmdet.ops.cost import cheaper_method, seconds

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('device', ['cpu', 'cuda', 'xpu'])
@pytest.mark.parametrize('grad', [False, True])
def test_many_positions_take_covariance_and_few_take_literal(dtype, device, grad):
    assert cheaper_method((1, 256, 100, 168), dtype, device, grad) == 'covariance'
    assert cheaper_method((1, 2048, 5, 5), dtype, device, grad) == 'literal'


@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize('method', ['literal', 'covariance'])
def test_time_grows_with_every_axis(method, grad):
    def time(*shape):
        return seconds(method, shape, torch.float32, 'cpu', grad)

    base = time(2, 64, 30, 40)
    assert time(4, 64, 30, 40) > base
    assert time(2, 128, 30, 40) > base
    assert time(2, 64, 60, 40) > base


def test_no_gradient_costs_less():
    shape = (2, 64, 30, 40)
    for method in ('literal', 'covariance'):
        assert seconds(method, shape, torch.float32, 'cpu', False) < seconds(
            method, shape, torch.float32, 'cpu', True
        )
