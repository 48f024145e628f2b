"""RetinaFace's configs: they build, train, and take plain weights."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import DATASETS, METRICS, MODELS, TRANSFORMS, VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config, DictAction
from mmengine.structures import InstanceData

FOLDER = Path(__file__).parents[2] / 'configs' / 'retinaface'
FULL = sorted(path.name for path in FOLDER.glob('*.py'))
CONFIGS = [*FULL, '../demo/retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider.py']


def load(name):
    register_all_modules()
    cfg = Config.fromfile(FOLDER / name)
    cfg.model.backbone.init_cfg = None
    return cfg


def make_batch(size, faces, annotated=True):
    """A batch with the given number of faces in each image."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for count in faces:
        corner = torch.rand(count, 2, generator=generator) * size / 2
        side = 10 + torch.rand(count, 1, generator=generator) * size / 3
        boxes = torch.cat([corner, corner + side], dim=1)
        points = corner[:, None] + torch.rand(count, 5, 2, generator=generator) * side[:, None]
        sample = DetDataSample(
            metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes,
            labels=torch.zeros(count, dtype=torch.long),
            keypoints=points,
            keypoints_visible=torch.full((count, 5), float(annotated)),
        )
        inputs.append(torch.randint(0, 255, (3, size, size), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_a_step_and_predicts(name):
    cfg = load(name)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    # An image without faces, and a batch without landmarks, must train as well.
    for faces, annotated in (((2, 0), True), ((1, 1), False)):
        model.zero_grad()
        batch = model.data_preprocessor(make_batch(128, faces, annotated), training=True)
        losses = model(**batch, mode='loss')
        assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_landmark'}
        total = sum(losses.values())
        assert total.isfinite()
        assert (losses['loss_landmark'] > 0) == annotated
        total.backward()
        for key, param in model.named_parameters():
            if param.requires_grad:
                assert param.grad is not None, key
                assert param.grad.isfinite().all(), key
    model.eval()
    with torch.no_grad():
        results = model.test_step(make_batch(128, (1,)))
    found = results[0].pred_instances
    assert found.keypoints.shape == (len(found), 5, 2)
    assert found.bboxes.shape == (len(found), 4)
    assert len(found) <= cfg.model.test_cfg.max_per_img


@pytest.mark.parametrize('name', FULL)
def test_every_part_of_a_config_is_registered(name):
    cfg = load(name)
    assert DATASETS.get(cfg.train_dataloader.dataset.type)
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        assert all(TRANSFORMS.get(step.type) for step in pipeline)
    assert METRICS.get(cfg.test_evaluator.type)
    assert VISUALIZERS.get(cfg.visualizer.type)
    assert MODELS.get(cfg.tta_model.type)
    assert cfg.auto_scale_lr.base_batch_size == 32


def test_schedule_of_retinafaces_paper():
    cfg = load('retinaface_r50_fpn_8xb4-80e_widerface.py')
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)
    warmup, steps = cfg.param_scheduler
    assert cfg.optim_wrapper.optimizer.lr * warmup.start_factor == pytest.approx(1e-3)
    assert (steps.milestones, steps.gamma, cfg.train_cfg.max_epochs) == ([55, 68], 0.1, 80)
    head = cfg.model.bbox_head
    weights = [head[key].loss_weight for key in ('loss_cls', 'loss_bbox', 'loss_landmark')]
    assert weights == [1.0, 0.25, 0.1]


@pytest.mark.parametrize(
    ('name', 'plugin'),
    [
        ('retinaface_r50-polynl-site-c4_fpn_8xb4-80e_widerface.py', 'site'),
        ('retinaface_r50-polynl-c3-c5_fpn_8xb4-80e_widerface.py', 'poly_nl'),
        ('retinaface_r50-nl-site-c4_fpn_8xb4-80e_widerface.py', 'site'),
    ],
)
def test_plain_weights_miss_only_the_plugin(name, plugin):
    backbone = MODELS.build(load(name).model.backbone)
    missing, unexpected = backbone.load_state_dict(ResNet(50).state_dict(), strict=False)
    assert missing
    assert not unexpected
    assert all(plugin in key for key in missing)


def test_data_and_metric_are_set_by_options():
    cfg = load('retinaface_r50_fpn_8xb4-80e_widerface.py')
    cfg.merge_from_dict(
        {
            'train_dataloader.dataset.data_root': 'r',
            'train_dataloader.dataset.ann_file': 'a.txt',
            'test_dataloader.dataset.data_root': 's',
            'test_evaluator.gt_dir': 'g',
        }
    )
    assert cfg.train_dataloader.dataset.data_root == 'r'
    assert cfg.test_dataloader.dataset.data_root == 's'
    assert cfg.val_dataloader.dataset.data_root == 'data/widerface/'
    assert cfg.test_evaluator.gt_dir == 'g'


@pytest.mark.parametrize('name', FULL)
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['scale=(2150,1600)', 'scale_factor=None'], (1600, 2000)),
        (['scale=None', 'scale_factor=1.0'], (768, 960)),
    ],
)
def test_test_scale_is_set_by_options(name, options, expected):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    prefix = 'test_dataloader.dataset.pipeline.1.'
    args = parser.parse_args(['--cfg-options', *[prefix + option for option in options]])
    cfg = load(name)
    cfg.merge_from_dict(args.cfg_options)
    resize = TRANSFORMS.build(cfg.test_dataloader.dataset.pipeline[1])
    image = np.zeros((768, 960, 3), np.uint8)
    result = resize(dict(img=image, img_shape=(768, 960)))
    assert result['img'].shape[:2] == expected
