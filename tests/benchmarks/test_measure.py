"""The measuring parts, on things whose size is known."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from benchmarks.measure import (
    bytes_kept,
    fitted_exponent,
    interleaved_times,
    markdown,
    peak_bytes,
    timed,
)
from benchmarks.rivals import floor_products, floor_time, make_parameters, poly_nl_by_conv2d
from polynl_mmdet.ops import poly_nl_reference


def test_bytes_kept_counts_shared_memory_once_and_no_parameters():
    x = torch.ones(1000, requires_grad=True)
    w = torch.ones(1000, requires_grad=True)
    assert bytes_kept(lambda: x * w, [w]) == 4000
    assert bytes_kept(lambda: (x * w) * x, [w]) == 8000
    assert bytes_kept(lambda: x + w, [w]) == 0


def test_peak_bytes_is_the_most_held_at_once():
    def twice_then_once():
        a = torch.empty(100_000)
        b = torch.empty(100_000)
        del a, b
        torch.empty(50_000)

    assert 800_000 <= peak_bytes(twice_then_once, 'cpu') < 801_000


def test_rounds_take_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in 'abc'}
    times = interleaved_times(functions, 'cpu', budget=0.0, rounds=9, warm_up=1)
    rounds = [''.join(calls[begin : begin + 3]) for begin in range(0, len(calls), 3)]
    assert len(rounds) == 10
    assert all(sorted(order) == ['a', 'b', 'c'] for order in rounds)
    assert len(set(rounds)) > 3
    assert [len(t) for t in times.values()] == [9, 9, 9]


@pytest.mark.parametrize('device', ['cuda', 'cuda:0', 'cuda:1'])
def test_every_cuda_device_is_waited_for(device, monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append('record')

        def synchronize(self):
            log.append('synchronize')

        def elapsed_time(self, other):
            return 1500.0

    monkeypatch.setattr('torch.cuda.Event', Event)
    monkeypatch.setattr('torch.cuda.device', lambda device: nullcontext(log.append(device)))
    assert timed(lambda: log.append('call'), device) == 1.5
    assert log == [device, 'record', 'call', 'record', 'synchronize']


def test_floor_takes_the_faster_library_for_each_product():
    times = {
        ('moment', 'bmm'): 2.0,
        ('moment', 'oneDNN'): 5.0,
        ('apply', 'bmm'): 11.0,
        ('apply', 'oneDNN'): 7.0,
    }
    assert floor_time(times, 'forward') == 2 + 7
    assert floor_time(times, 'step') == 2 * 2 + 3 * 7


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_floor_runs_in_both_memory_formats(dtype):
    x, g = torch.randn(2, 2, 8, 5, 7).to(dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        products = floor_products(*(t.contiguous(memory_format=memory_format) for t in (x, g)))
        assert {('moment', 'bmm'), ('apply', 'bmm')} <= set(products)
        for product in products.values():
            product()


def test_the_convolutions_compute_the_formula():
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    params = make_parameters(6, x)
    torch.testing.assert_close(poly_nl_by_conv2d(x, *params), poly_nl_reference(x, *params))


def test_exponent_of_a_power():
    sizes = [10, 100, 1000]
    assert abs(fitted_exponent(sizes, [3 * s**1.5 for s in sizes]) - 1.5) < 1e-12


def test_markdown_aligns():
    assert markdown(['', 'b'], [['long', '1']]) == '|      | b |\n|------|--:|\n| long | 1 |'
