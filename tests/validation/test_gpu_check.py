"""The check of a GPU: its steps run on a CPU, failures are recorded, and no place is told."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from validation.gpu_check import Step, run, steps, without_places

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def out(tmp_path):
    (tmp_path / 'logs').mkdir()
    return tmp_path


def test_a_step_that_fails_is_recorded(out):
    failing = run(Step('Some step', '-c "print(7); raise SystemExit(3)"', 60), set(), out)
    assert failing['result'] == 'FAILED, exit status 3'
    assert failing['output'] == ['7']
    slow = run(Step('slow', '-c "import time; time.sleep(60)"', 1), set(), out)
    assert slow['result'] == 'FAILED, not done after 1 s'


def test_a_step_gets_its_flags_and_is_left_out_without_its_device(out):
    shown = '-c "import os; print(os.environ[\'NVIDIA_TF32_OVERRIDE\'])"'
    step = Step('flags', shown, 60, 'cuda', {'NVIDIA_TF32_OVERRIDE': '0'})
    assert run(step, {'cuda'}, out)['output'] == ['0']
    assert run(step, set(), out)['result'] == 'left out: needs a GPU'


def test_no_place_and_no_name_is_told():
    text = f'{ROOT}/tools/train.py {Path.home()}/x {sys.prefix}/lib /data/sets/a.jpg 3/4'
    text += f' host {platform.node()}'
    clean = without_places(text)
    assert clean.startswith('.../tools/train.py .../x .../lib .../a.jpg 3/4')
    for place in (str(ROOT), str(Path.home()), '/data', platform.node()):
        assert place not in clean


@pytest.mark.slow
def test_all_steps_run_on_a_cpu(tmp_path):
    command = [sys.executable, 'validation/gpu_check.py', '--quick', '--device', 'cpu']
    done = subprocess.run(
        [*command, '--out', str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    report = json.loads((tmp_path / 'report.json').read_text())
    assert done.returncode == 0, [s for s in report['steps'] if s['result'].startswith('FAILED')]
    assert [s['name'] for s in report['steps']] == [s.name for s in steps('cpu', True, tmp_path)]
    passed = {s['name'] for s in report['steps'] if s['result'] == 'passed'}
    assert {'exactness', 'forced NaN', 'kill and resume', 'detector'} <= passed
    page = (tmp_path / 'report.md').read_text()
    assert 'gradients of' in page or 'losses that are not finite' in page
    assert str(tmp_path) not in page
    with tarfile.open(tmp_path / 'gpu_check.tar.gz') as archive:
        assert {'report.md', 'report.json', 'logs/exactness.txt'} <= set(archive.getnames())
