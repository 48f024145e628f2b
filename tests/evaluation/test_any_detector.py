"""docs/wider_face.md, "WIDER FACE with any detector of mmdet": its config on drawn faces."""

from __future__ import annotations

import json
import re

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from demo.toy_wider import make_toy_wider


@pytest.fixture
def toy(tmp_path):
    make_toy_wider(tmp_path / 'toy', train=4, val=3, size=96)
    return tmp_path / 'toy'


@pytest.fixture
def config(repo_root, toy, tmp_path):
    """The config of the page, made small: a shallow backbone without weights, and two steps."""
    page = (repo_root / 'docs/wider_face.md').read_text(encoding='utf-8')
    section = page.partition('any detector of mmdet\n')[2]
    block = re.search(r'```python\n(.*?)```', section, re.S)[1]
    path = tmp_path / 'fcos_wider.py'
    path.write_text(block.replace('data/widerface', str(toy)))
    cfg = Config.fromfile(path)
    backbone = dict(depth=18, base_channels=8, init_cfg=None, style='pytorch', frozen_stages=-1)
    cfg.model.backbone.update(backbone, norm_cfg=dict(type='BN'))
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    for pipeline in (
        cfg.train_dataloader.dataset.pipeline,
        cfg.val_dataloader.dataset.pipeline,
        cfg.test_dataloader.dataset.pipeline,
    ):
        next(step for step in pipeline if step.type == 'Resize').scale = (96, 96)
    cfg.merge_from_dict(
        {
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader.num_workers': 0,
            'val_dataloader.persistent_workers': False,
            'test_dataloader.num_workers': 0,
            'test_dataloader.persistent_workers': False,
            'train_cfg.max_epochs': 1,
            'model.test_cfg.score_thr': 0.0,
            'test_evaluator.outfile_prefix': str(tmp_path / 'predictions'),
            'work_dir': str(tmp_path / 'work'),
        }
    )
    return cfg


def test_train_test_and_score_files(config, toy, tmp_path, run_tool):
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.iter == 2
    assert (tmp_path / 'work/best_wider_face_hard_epoch_1.pth').is_file()
    found = runner.test()
    files = list((tmp_path / 'predictions').rglob('*.txt'))
    assert len(files) == 3
    assert sum(len(file.read_text().splitlines()) - 2 for file in files) > 0

    truth = toy / 'eval_tools' / 'ground_truth'
    out = tmp_path / 'aps.json'
    done = run_tool('eval_wider_face.py', tmp_path / 'predictions', truth, '--json', out)
    assert done.returncode == 0, done.stdout
    scored = {f'wider_face/{name}': ap for name, ap in json.loads(out.read_text()).items()}
    assert scored == found
    assert 'no faces' not in done.stdout
