"""A command's output in a log, and how far it has come on the screen."""

from __future__ import annotations

import sys

TRAINING = """
import sys
print('max_epochs = 3')
print('a warning of another package', file=sys.stderr)
for epoch in (1, 2, 3):
    for iteration in (5, 10):
        print(f'date - mmengine - INFO - Epoch(train)  [{epoch}][{iteration:2d}/10]  lr: 1.0  '
              f'eta: 0:00:01  loss: {4 - epoch}.25  loss_cls: 0.5')
    print('date - mmengine - INFO - Epoch(val) [1][4/4]    coco/bbox_mAP: 0.5')
"""


def test_progress_on_the_screen_and_the_rest_in_the_log(run_tool, tmp_path):
    log = tmp_path / 'folder' / 'log'
    done = run_tool('quiet_run.py', 'training it', log, sys.executable, '-u', '-c', TRAINING)
    assert done.returncode == 0, done.stdout
    assert f'== training it (log: {log})' in done.stdout
    assert 'another package' not in done.stdout
    assert len(done.stdout.splitlines()) <= 4
    assert '30/30' in done.stdout
    assert 'loss 1.25' in done.stdout
    assert 'a warning of another package' in log.read_text()
    assert log.read_text().count('Epoch(train)') == 6


def test_a_failure_in_one_line(run_tool, tmp_path):
    code = "import sys; print('reading'); sys.exit('error: a.jpg: cannot be read')"
    done = run_tool('quiet_run.py', 'testing', tmp_path / 'log', sys.executable, '-c', code)
    assert done.returncode == 1
    expected = f'error: a.jpg: cannot be read; the whole log: {tmp_path}/log'
    assert done.stdout.splitlines()[-1] == expected
