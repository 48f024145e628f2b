"""What the operator refuses, and how it says so."""

from __future__ import annotations

import pytest
import torch
from poly_nl_cases import make_params

from polynl_mmdet.ops import poly_nl


def call(x, method='auto', **changes):
    names = ('w1', 'w2', 'w3', 'alpha', 'beta', 'b1', 'b2', 'b3')
    params = dict(zip(names, make_params(4, dtype=torch.float32)))
    return poly_nl(x, **{**params, **changes}, method=method)


def test_unknown_method():
    with pytest.raises(ValueError, match="got method 'fast', expected auto, moments or proj"):
        call(torch.randn(1, 4, 3), method='fast')


def test_integer_input():
    with pytest.raises(TypeError, match=r'got x of dtype torch\.int64, expected floating point'):
        call(torch.ones(1, 4, 3, dtype=torch.int64))


def test_no_spatial_axis():
    with pytest.raises(ValueError, match=r'got x of shape \(2, 4\), expected \(B, C, \*spatial\)'):
        call(torch.randn(2, 4))


@pytest.mark.parametrize('name', ['w1', 'w2', 'w3', 'b1', 'b2', 'b3', 'alpha', 'beta'])
def test_wrong_shapes_are_named(name):
    with pytest.raises(ValueError, match=rf'{name} of shape \(3, 4\)'):
        call(torch.randn(1, 4, 3), **{name: torch.randn(3, 4)})
