"""A training that is killed, also while it writes, resumes from a complete checkpoint.

``POLYNL_KILLS=20 python -m pytest tests/engine/test_kill_and_resume.py`` kills it 20 times.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import sys
import time

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner, find_latest_checkpoint

from polynl_mmdet.engine import load_checkpoint

KILLS = int(os.environ.get('POLYNL_KILLS', 3))
PARTIAL = '*.partial'


@MODELS.register_module(force=True)
class LargeLinear(BaseModel):
    """A model whose checkpoint, 24 MB with momentum, takes a moment to write."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1000, 3000)

    def forward(self, inputs, mode='loss'):
        """The loss."""
        return dict(loss=self.net(torch.stack(inputs)).square().mean())


@DATASETS.register_module(force=True)
class Ones(torch.utils.data.Dataset):
    """Two samples."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1000))


def train(work_dir, max_epochs, log):
    """Train or resume, as ``--resume`` does, in this process."""
    sys.stdout = sys.stderr = open(log, 'w', buffering=1)  # noqa: SIM115
    Runner(
        LargeLinear(),
        str(work_dir),
        train_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=dict(type='Ones'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                interval=1,
                max_keep_ckpts=1,
                backend_args=dict(backend='atomic'),
            )
        ),
        custom_hooks=[dict(type='ConsistencyHook')],
        resume=True,
        experiment_name=f'run{time.time_ns()}',
        log_level='INFO',
    ).train()


def whole_epochs(work_dir):
    """Epochs of the checkpoints; every file must load, with what a training needs."""
    epochs = []
    for path in work_dir.glob('*.pth'):
        checkpoint = load_checkpoint(path)
        assert {'optimizer', 'state_dict', 'message_hub'} <= set(checkpoint)
        epochs.append(checkpoint['meta']['epoch'])
    return epochs


def wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks the training')
def test_killed_trainings_resume_from_a_whole_file(tmp_path):
    work_dir, context = tmp_path / 'work', multiprocessing.get_context('fork')
    epochs, killed_while_writing = [0], 0
    for kill in range(KILLS + 1):
        log, last = tmp_path / f'{kill}.log', kill == KILLS
        end = max(epochs) + 2  # Some epochs on.
        args = (work_dir, end if last else 10**6, str(log))
        process = context.Process(target=train, args=args, daemon=True)
        process.start()
        if last:
            process.join(60)
            assert process.exitcode == 0, log.read_text()[-2000:]
        else:
            wait(lambda e=end: any(int(p.stem[6:]) >= e for p in work_dir.glob('epoch_*.pth')))
            # In the middle of a write, anywhere, or at once.
            if kill % 3 == 0:
                wait(lambda: any(work_dir.glob(PARTIAL)))
            elif kill % 3 == 1:
                time.sleep(random.uniform(0, 0.1))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed_while_writing += any(work_dir.glob(PARTIAL))
            if kill % 3 == 2:  # mmengine's own file, as a kill between open and write leaves it.
                (work_dir / 'last_checkpoint').write_text('')
        resumed = re.findall(r'resumed epoch: (\d+)', log.read_text())
        assert resumed == ([str(max(epochs))] if kill else [])
        epochs = whole_epochs(work_dir)
        assert epochs
    assert killed_while_writing
    assert max(epochs) == end
    assert find_latest_checkpoint(str(work_dir)) == str(work_dir / f'epoch_{end}.pth')
