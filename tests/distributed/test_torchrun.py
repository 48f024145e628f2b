"""Two CPU processes of torchrun: one that dies ends the run, and those that finish end clean."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from demo.toy_coco import make_toy_coco

CONFIG = 'configs/demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def trainers(work_dir):
    """dict[int, int]: the process of each rank, by LOCAL_RANK, that trains into a folder."""
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if str(work_dir).encode() not in (folder / 'cmdline').read_bytes().split(b'\0'):
                continue
            variables = (folder / 'environ').read_bytes().split(b'\0')
        except OSError:
            continue
        for variable in variables:
            if variable.startswith(b'LOCAL_RANK='):
                found[int(variable[11:])] = int(folder.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='for processes without a GPU')
@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='needs /proc')
@pytest.mark.parametrize('dies', [0, 1])
def test_one_that_dies_ends_the_run(repo_root, tmp_path, dies):
    toy = tmp_path / 'toy'
    make_toy_coco(toy, train=8, val=2, seed=3, size=64)
    work, log = tmp_path / 'work', tmp_path / 'log'
    options = [
        f'train_dataloader.dataset.data_root={toy}',
        f'val_dataloader.dataset.data_root={toy}',
        f'val_evaluator.ann_file={toy}/annotations/instances_val.json',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'model.backbone.base_channels=8',
        'model.backbone.stem_channels=8',
        'model.neck.in_channels=[8,16,32,64]',
        # Ends by itself, should this test be killed.
        'train_cfg.max_epochs=60',
        'train_cfg.val_interval=60',
        'default_hooks.logger.interval=1',
    ]
    command = ['bash', 'tools/dist_train.sh', CONFIG, '2', '--work-dir', str(work)]
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    with open(log, 'wb') as output:
        run = subprocess.Popen(
            [*command, '--cfg-options', *options],
            cwd=repo_root,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, 'PORT': free_port(), 'OMP_NUM_THREADS': '1', 'PATH': path},
        )
    try:
        until = time.monotonic() + 300
        while not re.search(rb'Epoch\(train\)\s+\[1\]\[2/2\]', log.read_bytes()):
            assert run.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.2)
        os.kill(trainers(work)[dies], signal.SIGKILL)
        assert run.wait(60) != 0
        assert f'local_rank: {dies}' in log.read_text()
        time.sleep(1)
        assert trainers(work) == {}
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        for process in trainers(work).values():
            os.kill(process, signal.SIGKILL)


@pytest.mark.skipif(torch.cuda.is_available(), reason='for processes without a GPU')
@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='needs /proc')
def test_no_thread_of_the_group_outlives_it(tmp_path):
    # One that did would abort the process at its end, in some runs only.
    worker = Path(__file__).with_name('leave_worker.py')
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    done = subprocess.run(
        [*launch, worker],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # Whether there were any, how many there are, and whether there is a group.
    assert [(tmp_path / rank).read_text() for rank in '01'] == ['True 0 False'] * 2
