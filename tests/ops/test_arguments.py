"""What the operator refuses, and how it says so."""

from __future__ import annotations

import pytest
import torch
from poly_nl_cases import make_params

from polynl_mmdet.ops import poly_nl

NAMES = ('w1', 'w2', 'w3', 'alpha', 'beta', 'b1', 'b2', 'b3')


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(method='fast'), ValueError, "got method 'fast', expected auto, moments or proj"),
        (
            dict(x=torch.ones(1, 4, 3, dtype=torch.int64)),
            TypeError,
            r'got x of dtype torch\.int64, expected floating point',
        ),
        (
            dict(x=torch.randn(2, 4)),
            ValueError,
            r'got x of shape \(2, 4\), expected \(B, C, \*spatial\)',
        ),
        *(({n: torch.randn(3, 4)}, ValueError, rf'{n} of shape \(3, 4\)') for n in NAMES),
    ],
)
def test_errors(changes, error, message):
    params = dict(zip(NAMES, make_params(4, dtype=torch.float32)), x=torch.randn(1, 4, 3))
    with pytest.raises(error, match=message):
        poly_nl(**{**params, **changes})
