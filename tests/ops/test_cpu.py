"""Products by oneDNN, and when PyTorch's own library is used instead."""

from __future__ import annotations

import pytest
import torch
from poly_nl_cases import errors, make_input, make_params

from polynl_mmdet.ops import cpu, poly_nl

CHANNELS = 256  # products of few positions are then large enough for oneDNN


@pytest.fixture
def onednn(monkeypatch):
    """Products by oneDNN, results in small pieces; the calls to it."""
    try:
        original = torch.ops.mkldnn._linear_pointwise
        original(torch.ones(2, 3), torch.ones(4, 3), None, 'none', [], '')
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f'this PyTorch has no such product by oneDNN: {error}')
    calls = []
    monkeypatch.setattr(cpu, 'onednn_is_faster', lambda: True)
    monkeypatch.setattr(cpu, '_PIECE', 32 * 256)
    monkeypatch.setattr(
        torch.ops.mkldnn,
        '_linear_pointwise',
        lambda a, b, *rest: calls.append(b) or original(a, b, *rest),
    )
    return calls


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'cropped'])
@pytest.mark.parametrize('grad_layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('batch', [1, 2])
def test_results_and_gradients(batch, grad_layout, layout, onednn):
    x = make_input((batch, CHANNELS, 19, 23), layout, torch.float32)
    params = make_params(CHANNELS, True, True, torch.float32)
    grad = make_input(x.shape, grad_layout, dtype=torch.float32, seed=7).detach()
    for name, error in errors('moments', x, params, grad).items():
        assert error < 1e-5, name
    assert len(onednn) > 4
    # With a second operand with gaps it takes hundreds of times as long.
    assert all(b.is_contiguous() or b.t().is_contiguous() for b in onednn)


@pytest.mark.parametrize(
    ('dtype', 'channels', 'deterministic'),
    [
        (torch.float32, CHANNELS, True),
        (torch.float32, 32, False),
        (torch.float64, CHANNELS, False),
    ],
)
def test_other_products_use_torch(dtype, channels, deterministic, onednn):
    torch.use_deterministic_algorithms(deterministic)
    try:
        x = make_input((1, channels, 20, 20), dtype=dtype)
        poly_nl(x, *make_params(channels, dtype=dtype)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert not onednn


def test_a_counter_of_operations_sees_them_all(onednn):
    flop_counter = pytest.importorskip('torch.utils.flop_counter', reason='of torch 2.1')
    x = make_input((1, CHANNELS, 20, 20), dtype=torch.float32).detach()
    with flop_counter.FlopCounterMode(display=False) as counter:
        poly_nl(x, *make_params(CHANNELS, dtype=torch.float32))
    # Blocks on the diagonal of the second moment: 10 of 16.
    expected = 2 * 400 * CHANNELS**2 * (1 + 10 / 16) + 2 * CHANNELS**3
    assert counter.get_total_flops() == expected
    assert not onednn


def test_a_build_without_onednn_uses_torch(monkeypatch):
    def missing(a, b):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(cpu, '_linear', missing)
    assert not cpu.onednn_is_faster.__wrapped__()
