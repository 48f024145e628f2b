"""The benchmark kills, resumes, compares, and sees a difference of one bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from validation.kill_resume import (
    PARTIAL,
    differences,
    is_writing,
    kill,
    last_step,
    resumed_from,
    table,
)


def test_differences_are_found_to_the_bit():
    def made():
        return dict(
            weights=dict(a=torch.arange(3.0), b=[torch.tensor(1), 'text']),
            log=HistoryBuffer([1.0, 2.0], [1, 1]),
            numbers=(1, None, np.float32(2)),
        )

    assert differences(made(), made()) == []
    other = made()
    other['weights']['a'][1] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    other['log'].update(3.0)
    other['numbers'] = (1, 0, np.float32(2))
    del other['weights']['b'][1]
    found = differences(made(), other)
    assert found == ['/weights/a', '/weights/b', '/log/0', '/log/1', '/numbers/1']
    assert differences(dict(a=1), dict(b=1)) == ['/a', '/b']
    assert differences(torch.ones(2), torch.ones(2).double()) == ['']


@pytest.fixture
def sleeping(tmp_path):
    """A process of its own group that begins to write a checkpoint, and stays in it."""
    code = (
        'import time, pathlib, sys\ntime.sleep(0.5)\n'
        f'pathlib.Path(sys.argv[1], "x.pth{PARTIAL}").touch()\ntime.sleep(60)'
    )
    process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], start_new_session=True)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def test_kills_while_writing(sleeping, tmp_path):
    assert not is_writing(tmp_path)
    assert kill(sleeping.pid, tmp_path, 0.001, 1) > 0.4
    assert is_writing(tmp_path)


def test_kills_at_a_moment(sleeping, tmp_path):
    begun = time.monotonic()
    assert kill(sleeping.pid, tmp_path, 0.05, None) >= 0.05
    assert time.monotonic() - begun < 30
    assert not is_writing(tmp_path)


def test_a_run_that_ended_before_is_told(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', ''])
    assert kill(process.pid, tmp_path, 60, None) is None
    assert not is_writing(tmp_path / 'none')


def test_logs_are_read(tmp_path):
    log = tmp_path / 'log'
    log.write_text(
        'INFO - Epoch(train)  [1][ 2/6]  lr\nINFO - Epoch(train) [2][6/6]\n'
        '/a/epoch_3.pth: cut off (x); passed over\n'
        f'/a/epoch_4.pth{PARTIAL}: half-written by a run\n'
        'Load checkpoint from /a/epoch_2.pth\n'
    )
    assert last_step(log) == '2:6'
    expected = ('epoch_2.pth', ['epoch_3.pth', f'epoch_4.pth{PARTIAL}'])
    assert resumed_from(log) == expected
    log.write_text('nothing')
    assert (last_step(log), resumed_from(log)) == ('-', ('the beginning', []))


def test_the_table_shows_what_differs():
    row = dict(
        run=0,
        workers=2,
        saved_by='epoch',
        killed_after_s=1.25,
        at='1:2',
        writing=True,
        resumed_from='epoch_1.pth',
        differences=['/state_dict/x'],
    )
    lines = table([row, dict(row, differences=[])]).splitlines()
    assert 'NO: /state_dict/x' in lines[2]
    assert lines[3].rstrip(' |').endswith('yes')


@pytest.mark.slow
def test_two_kills(repo_root, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(repo_root / 'benchmarks' / 'kill_resume.py'),
            *('--kills', '2', '--workers', '1', '--saved-by', 'epoch', '--seed', '3'),
            *('--output', str(tmp_path / 'k.json'), '--work-dir', str(tmp_path / 'runs')),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '2 of 2 killed runs ended identical' in done.stdout
    rows = json.loads((tmp_path / 'k.json').read_text())['rows']
    assert [row['differences'] for row in rows] == [[], []]
