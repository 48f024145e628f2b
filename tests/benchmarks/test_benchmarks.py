"""The benchmarks run and write what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch


@pytest.mark.skipif(torch.__version__ < (2, 3), reason='torch 2.3: records of the profiler')
@pytest.mark.parametrize(
    ('script', 'part', 'names'),
    [
        ('bench_operator.py', 'rows', {'Poly-NL', 'conv2d, channels last', 'ContextBlock'}),
        ('bench_layers.py', 'scaling', {'PolyNL', 'NonLocal2d', 'GlobalResponseNorm'}),
        pytest.param('bench_detector.py', 'rows', {'none', 'Poly-NL c4'}, marks=pytest.mark.slow),
    ],
)
def test_quick_run(script, part, names, repo_root, tmp_path):
    output = tmp_path / 'report.json'
    command = [sys.executable, str(repo_root / 'benchmarks' / script), '--quick']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(repo_root)}
    done = subprocess.run(
        [*command, '--output', str(output)], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    rows = json.loads(output.read_text())[part]
    assert names <= {row['name'] for row in rows}
    for row in rows:
        assert row['forward'] > 0
        assert row['step'] > 0
        assert row['name'] in done.stdout
