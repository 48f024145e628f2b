"""RetinaFace's configs: they build, train, and take plain weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

from polynl_mmdet.wider_face import read_ground_truth, read_predictions, score_wider_face

FOLDER = Path(__file__).parents[2] / 'configs' / 'retinaface'
# Of each backbone, neck and kind of insertion one.
CONFIGS = [
    'retinaface_r50-polynl-site-c4_fpn_8xb4-80e_widerface.py',
    'retinaface_r50_merge-fpn_8xb4-80e_widerface.py',
    'retinaface_mobilenet0.25-polynl-c4_merge-fpn_finetune_widerface.py',
    '../demo/retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider.py',
]


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


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.py')), ids=lambda path: path.stem)
def test_builds(path):
    with torch.device('meta'):
        MODELS.build(load(path.name).model)


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


def test_real_weights_score_as_the_reference_does(run_tool, data_root, tmp_path):
    """tools/test.py gives the AP of the reference detections, and files that score the same.

    So does the fine-tuning config before its first step.
    """
    folder, truth = data_root / 'retinaface_mobilenet025', data_root / 'wider_eval/ground_truth'
    checkpoint = tmp_path / 'model.pth'
    done = run_tool('convert_retinaface.py', folder / 'mobilenet0.25_Final.pth', checkpoint)
    assert done.returncode == 0, done.stdout[-3000:]
    reference = {
        f'22--Picnic/{name}': np.c_[found[:, :2], found[:, 2:4] - found[:, :2], found[:, 4:5]]
        for name, found in np.load(folder / 'reference_detections.npz').items()
    }
    ground_truth = read_ground_truth(str(truth))
    expected = score_wider_face(reference, ground_truth, 0.5, True).ap
    for config in (
        'retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py',
        'retinaface_mobilenet0.25-polynl-c4_merge-fpn_finetune_widerface.py',
    ):
        out, work_dir = tmp_path / f'{config}.out', tmp_path / config
        done = run_tool(
            'test.py',
            FOLDER / config,
            checkpoint,
            '--work-dir',
            work_dir,
            '--cfg-options',
            f'test_dataloader.dataset.data_root={data_root}/wider_mini',
            f'test_evaluator.gt_dir={truth}',
            'test_evaluator.subset=True',
            f'test_evaluator.outfile_prefix={out}',
        )
        assert done.returncode == 0, done.stdout[-3000:]
        predictions, _ = read_predictions(out)
        written = score_wider_face(predictions, ground_truth, 0.5, True).ap
        (path,) = work_dir.glob('*/*.json')
        result = json.loads(path.read_text())
        for key, value in expected.items():
            assert result[f'wider_face/{key}'] == pytest.approx(value, abs=1e-3)
            assert written[key] == pytest.approx(result[f'wider_face/{key}'], abs=1e-6)
