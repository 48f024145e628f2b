"""The benchmarks run and write what they measured. How fast anything is, is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from forks import without_notice

WITHOUT_MM = """
import pkgutil, runpy, sys  # before a folder with an operator.py comes first on the path
for name in ('mmcv', 'mmengine', 'mmdet', 'numpy', 'matplotlib'):
    sys.modules[name] = None  # as if it were not installed
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition('/')[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run(repo_root, script, *args, before=()):
    command = [sys.executable, *before, str(repo_root / 'benchmarks' / script), *map(str, args)]
    done = subprocess.run(
        command,
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr
    return without_notice(done).stdout


def test_operator(repo_root, tmp_path):
    out = run(repo_root, 'operator.py', '--quick', '--threads', 1, '--output', tmp_path / 'o.json')
    report = json.loads((tmp_path / 'o.json').read_text())
    names = [row['name'] for row in report['rows']]
    floor = 'floor (2, 5 products)'
    assert names[:5] == [floor, f'{floor}, channels last', 'moments', 'projections', 'auto']
    assert {'auto, LN', 'conv2d', 'conv2d, channels last', 'auto, channels last'} < set(names)
    assert {'NonLocal2d, embedded', 'NonLocal2d, dot', 'ContextBlock'} <= set(names)
    for row in report['rows'][:2]:
        assert set(row['libraries']) == {'moment', 'apply'}
        assert 0 < row['forward'] < row['step']
    for row in report['rows'][2:]:
        assert row['forward'] > 0
        assert row['step'] > 0
        assert row['kept'] >= 1
        assert row['peak'] >= 2  # at least the output and the gradient
        assert row['name'] in out
    moments, projections = report['rows'][2:4]
    assert moments['kept'] < 1.25
    again = run(repo_root, 'operator.py', '--table', tmp_path / 'o.json')
    assert again.strip() == out[out.index('Forward, milliseconds') :].strip()


def test_scaling_draws_a_image(repo_root, tmp_path):
    pytest.importorskip('matplotlib')
    paths = ('--output', tmp_path / 's.json', '--plot', tmp_path / 's.png')
    out = run(repo_root, 'operator.py', '--scaling', '--quick', *paths)
    assert 'exponents over N' in out
    assert 'sweep 3 of 3' in out
    assert (tmp_path / 's.png').read_bytes().startswith(b'\x89PNG')
    report = json.loads((tmp_path / 's.json').read_text())
    cases = [(*row['shape'], row['name']) for row in report['rows']]
    assert len(set(cases)) == len(cases), 'three sweeps give one row a rival and shape'
    assert [row['shape'][3] for row in report['rows'] if row['name'] == 'auto'] == [64, 256]
    kept = report['exponents']['auto, C=16, kept']
    assert kept == pytest.approx(1.0, abs=0.1)


def test_operator_needs_torch_alone(repo_root):
    out = run(repo_root, 'operator.py', '--quick', before=('-c', WITHOUT_MM))
    assert 'mmcv is not installed: NonLocal2d, embedded, NonLocal2d, dot, ContextBlock' in out
    assert '| moments' in out


@pytest.mark.slow
def test_detector(repo_root, tmp_path):
    output = tmp_path / 'd.json'
    chosen = ('--detectors', 'none', 'Poly-NL c4')
    run(repo_root, 'detector.py', '--quick', '--output', output, *chosen)
    rows = {row['name']: row for row in json.loads(output.read_text())['rows']}
    channels, positions = 1024, 8 * 10
    # Three C x C weights, the context's norm and two scalars; two products over the positions and
    # one of matrices.
    added = rows['Poly-NL c4']['params'] - rows['none']['params']
    assert added == 3 * channels**2 + 2 * channels + 2
    flops = rows['Poly-NL c4']['flops'] - rows['none']['flops']
    assert flops == pytest.approx(2 * positions * channels**2 + channels**3, rel=0.01)
