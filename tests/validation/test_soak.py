"""The soak: what it measures, on made-up memory; and that it runs."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from validation.soak import slope, soak


def test_memory_that_stays_has_no_slope():
    assert slope([(step, 5.0) for step in range(60)]) == pytest.approx((0, 0))


@pytest.mark.parametrize('truth', [0.0, 250.0, -40.0])
def test_the_slope_is_that_of_the_memory(truth):
    rng = np.random.default_rng(0)
    steps = np.arange(600) * 10
    memory = 1e6 + truth * steps / 1000 + rng.normal(0, 20, 600)
    memory[:150] += np.linspace(-9e4, 0, 150)  # The warm-up does not count.
    found, error = slope(list(zip(steps.tolist(), memory)))
    assert 0.1 < error < 5
    assert abs(found - truth) < 4 * error


def test_a_leak_is_seen(tmp_path):
    kept = []

    def leaks():
        while True:
            kept.append(np.ones(64 << 10, dtype=np.uint8))  # 64 KiB a step
            yield 1

    row, passed = soak('leaks', leaks(), 600, 1024.0)
    assert not passed
    assert row[5:] == ['0', '0']

    def opens():
        yield 1
        kept.append(open(tmp_path / 'x', 'w'))  # noqa: SIM115
        yield from [1] * 60

    row, passed = soak('opens', opens(), 60, float('inf'))
    assert not passed
    assert row[5:] == ['1', '0']
    kept.pop().close()


def test_a_short_soak_runs(repo_root, tmp_path):
    command = [sys.executable, str(repo_root / 'validation/soak.py'), '--passes', '30']
    done = subprocess.run(
        [*command, '--images', '300', '--bound', 'inf'],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ('PolyNL', 'five layers', 'WIDERFaceMetric', 'CheckedCocoMetric'):
        assert re.search(rf'\| {name} .*\| +0 \| +0 \|', done.stdout), done.stdout
