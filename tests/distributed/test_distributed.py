"""Two CPU processes: dist_train.sh, and the COCO metric."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from coco_files import NAMES, evaluate, make_coco
from mmengine.dataset import DefaultSampler
from torch import distributed, multiprocessing

from demo.toy_coco import make_toy_coco
from polynl_mmdet.cli import leave_process_group
from polynl_mmdet.evaluation import OrderedCocoMetric

CONFIG = 'configs/demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'


class Shared(OrderedCocoMetric):
    """Gets this process's share of the images, as mmengine's sampler gives them."""

    def evaluate(self, size):
        """Evaluate all processes' shares."""
        order = list(DefaultSampler(self.results, shuffle=False))
        self.results = [self.results[index] for index in order]
        return super().evaluate(size)


def work(rank, folder, content, world=2):
    """Evaluate in one of several processes."""
    os.chdir(folder)
    torch.set_num_threads(1)
    if world > 1:
        store = f'file://{folder}/store'
        distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=world)
    metric = Shared(str(folder / 'val.json'), metric=['bbox', 'segm'])
    result = evaluate(metric, content, NAMES, noise=2.0)
    (folder / f'{world}_{rank}').write_text(repr(result))
    leave_process_group()


def test_metric_of_two_processes_is_a_single_processes(tmp_path):
    content = make_coco(tmp_path / 'val.json', images=9)  # An odd number.
    work(0, tmp_path, content, world=1)
    context = multiprocessing.start_processes(
        work, (tmp_path, content), nprocs=2, start_method='fork', join=False
    )
    while not context.join(60):
        pass
    alone = (tmp_path / '1_0').read_text()
    assert 'bbox_mAP' in alone
    assert [(tmp_path / f'2_{rank}').read_text() for rank in range(2)] == [alone] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason='for processes without a GPU')
def test_dist_train(run_tool, repo_root, tmp_path):
    make_toy_coco(tmp_path / 'toy', train=8, val=3, seed=3, size=96)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = {'PORT': port, 'OMP_NUM_THREADS': '1', 'PATH': path}
    config, ann_file = repo_root / CONFIG, tmp_path / 'toy/annotations/instances_val.json'
    loaders = [f'{split}_dataloader' for split in ('train', 'val', 'test')]
    options = [
        '--cfg-options',
        *(f'{loader}.dataset.data_root={tmp_path}/toy/' for loader in loaders),
        *(f'{loader}.num_workers=0' for loader in loaders),
        *(f'{loader}.persistent_workers=False' for loader in loaders),
        *(f'{split}_evaluator.ann_file={ann_file}' for split in ('val', 'test')),
        'train_dataloader.batch_size=2',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1',
    ]
    done = run_tool(
        'dist_train.sh', config, 2, '--work-dir', tmp_path / 'work', *options,
        env=env, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'Epoch(train) [1][2/2]' in done.stdout, 'two processes share the four batches'
    assert 'segm_mAP_50' in done.stdout
