"""COCO configs build, follow their names, and differ from their baseline in the layer alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from polynl_mmdet.layers import PolyNL, SpatialBiasTerm

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted(
    path.relative_to(ROOT / 'configs').as_posix()
    for family in ('mask_rcnn', 'retinanet')
    for path in (ROOT / 'configs' / family).glob('*_coco.py')
)


def load(name):
    return Config.fromfile(ROOT / 'configs' / name)


LAYERS = {
    'polynl': 'PolyNL',
    'nl': 'NonLocal2d',
    'gcb': 'ContextBlock',
    'spatial-bias': 'SpatialBiasBottleneck',
}


@pytest.mark.parametrize('name', CONFIGS)
def test_config_does_what_its_name_says(name):
    cfg = load(name)
    with torch.device('meta'):
        backbone = MODELS.build({**cfg.model.backbone, 'init_cfg': None})
    kinds = [type(m).__name__ for m in backbone.modules()]
    blocks = (3, 4, 6, 3) if '_r50' in name else (3, 4, 23, 3)  # of c2 to c5
    for label, layer in LAYERS.items():
        expected, place = 0, re.search(rf'-{label}-(site-c\d|c(\d)-c(\d))', name)
        if place:
            site = place[1].startswith('site-')
            expected = 1 if site else sum(blocks[int(place[2]) - 2 : int(place[3]) - 1])
        assert kinds.count(layer) == expected, layer
    assert cfg.model.backbone.depth == (50 if '_r50' in name else 101)
    assert ('ResNeXt' in cfg.model.backbone.type) == ('x101' in name)
    assert cfg.train_cfg.max_epochs == (24 if '_2x_' in name else 12)
    assert cfg.param_scheduler[-1].milestones == ([16, 22] if '_2x_' in name else [8, 11])
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    assert cfg.custom_imports.imports == ['polynl_mmdet']


@pytest.mark.parametrize('name', [name for name in CONFIGS if '_r50-' in name and '_1x_' in name])
def test_config_differs_from_its_baseline_in_the_backbone_alone(name):
    cfg, baseline = load(name).to_dict(), load(re.sub('_r50-.*_fpn', '_r50_fpn', name)).to_dict()
    assert cfg['model'].pop('backbone') != baseline['model'].pop('backbone')
    assert cfg == baseline


@pytest.mark.parametrize('name', [name for name in CONFIGS if '_r50_fpn_' in name])
def test_baseline_is_mmdets_config_with_our_data_set_metric_and_hooks(name, tmp_path):
    (tmp_path / 'theirs.py').write_text(f"_base_ = 'mmdet::{name}'")
    baseline, theirs = load(name).to_dict(), Config.fromfile(tmp_path / 'theirs.py').to_dict()
    for part in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert baseline[part]['dataset'].pop('type') == 'OrderedCocoDataset'
        assert theirs[part]['dataset'].pop('type') == 'CocoDataset'
    for part in ('val_evaluator', 'test_evaluator'):
        assert baseline[part].pop('type') == 'OrderedCocoMetric'
        assert theirs[part].pop('type') == 'CocoMetric'
    assert baseline.pop('custom_imports')['imports'] == ['polynl_mmdet']
    assert baseline.pop('custom_hooks') == [
        dict(type='CheckInvalidLossHook'),
        dict(type='ConsistencyHook'),
    ]
    checkpoint = baseline['default_hooks']['checkpoint']
    assert checkpoint.pop('backend_args') == dict(backend='atomic')
    assert checkpoint.pop('save_best') in ('coco/segm_mAP', 'coco/bbox_mAP')
    assert 'resnet50' in baseline['model']['backbone']['init_cfg'].pop('checkpoint')
    assert theirs['model']['backbone']['init_cfg'].pop('checkpoint') == 'torchvision://resnet50'
    assert baseline == theirs


# mmdet's own Cascade Mask R-CNN with one custom_imports line and one plugins entry.
OUTSIDE = """
_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)
plugin = dict(cfg=dict(type='PolyNL'), stages=(False, True, True, True), position='after_conv2')
model = dict(backbone=dict(plugins=[plugin]))
"""


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('mask_rcnn/mask-rcnn_r50-spatial-bias-c2-c4-polynl-site-c4_fpn_1x_coco.py', 1),
        ('outside', 13),
    ],
)
def test_losses_are_finite_and_reach_the_layer(name, count, tmp_path, monkeypatch):
    if name == 'outside':
        (tmp_path / 'mine.py').write_text(OUTSIDE)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'path', [p for p in sys.path if p not in ('', str(ROOT))])
        cfg = Config.fromfile('mine.py').model
    else:
        cfg = load(name).model
    # With zero_init_residual and no pretrained weights no gradient reaches the layer.
    cfg.backbone.update(init_cfg=None, frozen_stages=-1, zero_init_residual=False)
    cfg.train_cfg.rpn_proposal.max_per_img = 16
    model = MODELS.build(cfg)
    model.init_weights()
    model.train()
    batch = demo_mm_inputs(2, [[3, 64, 96]] * 2, with_mask=True)
    total, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    assert torch.isfinite(total)
    total.backward()
    layers = [m.w3 for m in model.modules() if isinstance(m, PolyNL)]
    assert len(layers) == count
    layers += [m.conv_out.weight for m in model.modules() if isinstance(m, SpatialBiasTerm)]
    for weight in layers:
        assert torch.isfinite(weight.grad).all()
        assert weight.grad.abs().max() > 0
