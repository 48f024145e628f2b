"""Pretrained weights: the files that mmdet uses, without torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse

import mmengine
import pytest
import torch
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)
# What 'torchvision://resnet50' and 'open-mmlab://resnext101_32x4d' stand for.
HUB = Path(mmengine.__file__).parent / 'hub'
TORCHVISION = json.loads((HUB / 'torchvision_0.12.json').read_text())
OPENMMLAB = json.loads((HUB / 'openmmlab.json').read_text())
URLS = {
    '_r50': TORCHVISION['resnet50'],
    '_r101': TORCHVISION['resnet101'],
    '_x101-32x4d': OPENMMLAB['resnext101_32x4d'],
}


def checkpoints(part):
    """Yield every ``checkpoint`` of a config and its ``load_from``."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ('checkpoint', 'load_from', 'pretrained') and isinstance(value, str):
                yield value
            yield from checkpoints(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from checkpoints(value)


@pytest.mark.parametrize('name', CONFIGS)
def test_weights_are_mmdets_and_need_no_torchvision(name, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchvision', None)
    urls = []
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.load_url', lambda url, **_: urls.append(url) or {}
    )
    cfg = Config.fromfile(ROOT / name)
    for checkpoint in checkpoints(cfg.to_dict()):
        if '://' in checkpoint:
            CheckpointLoader.load_checkpoint(checkpoint)
    expected = [url for key, url in URLS.items() if key in name and 'demo' not in name]
    assert urls[:1] == expected


def test_readmes_first_training_command(run_tool, data_root, tmp_path):
    """As typed, with a stand-in for the download in torch's cache."""
    cache = tmp_path / 'torch/hub/checkpoints'
    cache.mkdir(parents=True)
    weights = ResNet(50).state_dict()
    weights.update({'fc.weight': torch.zeros(1000, 2048), 'fc.bias': torch.zeros(1000)})
    torch.save(weights, cache / Path(urlparse(URLS['_r50']).path).name)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/coco').symlink_to((data_root / 'coco_mini').resolve())
    done = run_tool(
        'train.py',
        ROOT / 'configs/mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py',
        '--cfg-options',
        'train_dataloader.dataset.indices=3',
        'train_dataloader.batch_size=1',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_dataloader.dataset.pipeline.2.scale=(160,128)',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=-1',
        'train_cfg.max_epochs=1',
        'train_cfg.val_begin=2',
        cwd=tmp_path,
        env={'TORCH_HOME': str(tmp_path / 'torch')},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'Epoch(train) [1][3/3]' in done.stdout
    assert 'No module named' not in done.stdout
