"""The validation kills, resumes, compares, and sees a difference of one bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from validation.kill_resume import (
    PARTIAL,
    RESUMED,
    STEP,
    differences,
    is_writing,
    kill,
    last_match,
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
    assert found == ['/weights/a', '/weights/b', '/weights/b/1', '/log/0', '/log/1', '/numbers/1']
    assert differences(dict(a=1), dict(b=1)) == ['/a', '/b']
    assert differences([1], [1, 2])[0] == ''
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


@pytest.mark.parametrize(('moment', 'write'), [(0.001, 1), (0.05, 0)])
def test_kills_while_writing_or_at_a_moment(sleeping, tmp_path, moment, write):
    assert not is_writing(tmp_path)
    seconds = kill(sleeping.pid, tmp_path, moment, write)
    assert seconds >= (0.4 if write else moment)
    assert is_writing(tmp_path) == bool(write)


def test_a_run_that_ended_before_is_told(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', ''])
    assert kill(process.pid, tmp_path, 60) is None
    assert not is_writing(tmp_path / 'none')


def test_logs_are_read(tmp_path):
    log = tmp_path / 'log'
    log.write_text(
        'INFO - Epoch(train)  [1][ 2/6]  lr\nINFO - Epoch(train) [2][6/6]\n'
        'Load checkpoint from /a/epoch_2.pth\n'
    )
    assert last_match(STEP, log, '-') == '[2][6/6]'
    assert last_match(RESUMED, log, '-') == '/a/epoch_2.pth'
    log.write_text('nothing')
    assert last_match(STEP, log, '-') == '-'


@pytest.mark.slow
def test_two_kills(tmp_path):
    code = (
        'import pathlib, sys; from validation.kill_resume import main\n'
        "sys.exit(not main(2, pathlib.Path(sys.argv[1]), [(1, 'epoch')]))"
    )
    # A fork of this process could not train: its autograd may have threads.
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '2 of 2 killed runs ended identical' in done.stdout
