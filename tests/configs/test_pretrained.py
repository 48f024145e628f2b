"""Pretrained weights: the files that mmdet uses, without torchvision."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlparse

import mmengine
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

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
    if 'finetune' in name:
        expected = [url for url in (cfg.load_from,) if '://' in url]
    assert urls == expected


def test_fine_tuning_a_coco_detector(run_tool, data_root, tmp_path):
    """A step on real images, from weights in torch's cache."""
    name = 'mask-rcnn_r50-polynl-site-c4_fpn_finetune_custom.py'
    cfg = Config.fromfile(ROOT / 'configs/mask_rcnn' / name)
    trained = Config.fromfile(ROOT / 'configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    trained.backbone.init_cfg = None
    weights = tmp_path / 'torch/hub/checkpoints' / Path(urlparse(cfg.load_from).path).name
    weights.parent.mkdir(parents=True)
    torch.save(dict(state_dict=MODELS.build(trained).state_dict(), meta={}), weights)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/custom').symlink_to((data_root / 'coco_mini').resolve())
    sets = [f'{split}_dataloader.dataset' for split in ('train', 'val', 'test')]
    files = [f'annotations/instances_{s}2017.json' for s in ('train', 'val', 'val')]
    done = run_tool(
        'train.py',
        ROOT / 'configs/mask_rcnn' / name,
        '--cfg-options',
        'train_dataloader.dataset.indices=1',
        'train_dataloader.batch_size=1',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_dataloader.dataset.pipeline.2.scale=(160,128)',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=-1',
        'train_cfg.max_epochs=1',
        'train_cfg.val_begin=2',
        *(f"{s}.metainfo.classes=('person','chair')" for s in sets),
        *(f'{s}.ann_file={file}' for s, file in zip(sets, files)),
        'train_dataloader.dataset.data_prefix.img=train2017/',
        f'val_evaluator.ann_file=data/custom/{files[1]}',
        cwd=tmp_path,
        env={'TORCH_HOME': str(tmp_path / 'torch')},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'Epoch(train) [1][1/1]' in done.stdout
    for head in ('fc_cls', 'fc_reg', 'conv_logits'):
        assert re.search(rf'size mismatch for \S*{head}', done.stdout)
    missing = done.stdout.partition('missing keys in source state_dict: ')[2].partition('\n')[0]
    assert missing
    assert all('.site' in key for key in missing.split(', '))


LAYER = dict(type='PolyNL', context_norm=True)
SITE = dict(cfg=LAYER, stage='c4', before_block=-1)
PLUGIN = dict(cfg=LAYER, position='after_conv2', stages=(False, True, True, True))
FPN = dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=64, num_outs=5)


@pytest.mark.parametrize(
    'name',
    [
        'mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_finetune_custom.py',
        'retinaface/retinaface_mobilenet0.25-polynl-c4_merge-fpn_finetune_widerface.py',
    ],
)
@pytest.mark.parametrize(
    ('backbone', 'neck'),
    [
        (dict(type='SiteResNet', sites=[SITE]), FPN),
        (dict(type='ResNet', plugins=[PLUGIN]), FPN),
        (dict(type='ResNet'), dict(type='LevelContext', layer=LAYER, levels=[2], neck=FPN)),
    ],
)
def test_new_layers_learn_faster_however_inserted(name, backbone, neck):
    with torch.device('meta'):
        parts = dict(backbone=MODELS.build(dict(depth=50, **backbone)), neck=MODELS.build(neck))
        model = nn.ModuleDict(parts)
    new = {id(p) for m in model.modules() if type(m).__name__ == 'PolyNL' for p in m.parameters()}
    assert new
    wrapper = Config.fromfile(ROOT / 'configs' / name).optim_wrapper
    lr = wrapper.optimizer.lr
    for group in build_optim_wrapper(model, wrapper).optimizer.param_groups:
        for parameter in group['params']:
            assert group['lr'] == pytest.approx(10 * lr if id(parameter) in new else lr)
