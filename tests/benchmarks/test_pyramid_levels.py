"""The cost table of a pyramid's levels: a quick run, and what is left out for its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_a_quick_run_says_what_cannot_run(tmp_path):
    command = [sys.executable, str(ROOT / 'benchmarks/pyramid_levels.py'), '--quick']
    command += ['--threads', '1', '--memory', '1e-4', '--output', str(tmp_path / 'out.json')]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    levels = json.loads((tmp_path / 'out.json').read_text())['levels']
    assert list(levels) == ['P2', 'P3', 'P4', 'P5']
    for rows in levels.values():
        for name in ('PolyNL', 'ContextBlock'):
            assert min(rows[name][quantity] for quantity in ('forward', 'step', 'parameters')) > 0
            assert rows[name]['peak'] >= rows[name]['kept'] > 0
    # Three matrices of (8 x 16) positions squared, in bytes; what fits is measured.
    assert levels['P2']['NonLocal2d'] == {'needs': 3 * 4 * 128**2}
    assert 'needs 0 GB' in done.stdout
    assert levels['P5']['NonLocal2d']['step'] > 0
