"""The soak: what it measures, on made-up memory; and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from validation.soak import open_files, slope, watch


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
    kept, files = [], []

    def leaks():
        while True:
            kept.append(np.ones(64 << 10, dtype=np.uint8))  # 64 KiB a step
            yield 1

    found, error = slope(watch(leaks(), 600))
    assert found - 2 * error > 30_000
    before = open_files()
    files.append(open(tmp_path / 'x', 'w'))  # noqa: SIM115
    assert open_files() == before + 1
    files.pop().close()


def test_a_short_soak_runs(repo_root, tmp_path):
    output = tmp_path / 'soak.json'
    command = [sys.executable, str(repo_root / 'validation/soak.py'), '--quick']
    done = subprocess.run(
        [*command, '--output', str(output)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(output.read_text())['rows']
    assert [row['name'] for row in rows][:3] == ['PolyNL', 'five layers', 'WIDERFaceMetric']
    for row in rows:
        assert row['files_left'] <= 0
        assert row['threads_left'] <= 0
        assert row['name'] in done.stdout
