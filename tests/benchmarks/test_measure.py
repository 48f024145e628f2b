"""The measuring parts, on things whose size is known."""

from __future__ import annotations

import torch

from benchmarks.measure import (
    bytes_kept,
    fitted_exponent,
    interleaved_times,
    markdown,
    peak_bytes,
)


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


def test_exponent_of_a_power():
    sizes = [10, 100, 1000]
    assert abs(fitted_exponent(sizes, [3 * s**1.5 for s in sizes]) - 1.5) < 1e-12


def test_markdown_aligns():
    assert markdown(['', 'b'], [['long', '1']]) == '|      | b |\n|------|--:|\n| long | 1 |'
