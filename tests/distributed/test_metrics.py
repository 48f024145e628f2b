"""Metrics of a test on several processes equal one process's exactly, whatever the remainder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from processes import run_in
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from work import evaluate

from demo.toy_coco import CLASSES, make_toy_coco
from polynl_mmdet.wider_face import WiderFaceGroundTruth, write_ground_truth
from polynl_mmdet.wider_face.ground_truth import SETTINGS

IMAGES = 17  # divided by neither 2 nor 3


def wider(tmp_path):
    rng = np.random.default_rng(0)
    names = [f'{n // 5}--Event/p{n}' for n in range(IMAGES)]
    counts = rng.integers(0, 6, len(names))
    boxes = rng.integers(4, 40, (counts.sum(), 4)).astype(float)
    counted = {setting: rng.random(len(boxes)) < 0.7 for setting in SETTINGS}
    starts = np.cumsum([0, *counts])
    write_ground_truth(tmp_path / 'gt', WiderFaceGroundTruth(names, starts, boxes, counted))
    samples = []
    for number, name in enumerate(names):
        rows = boxes[starts[number] : starts[number + 1]]
        rows = np.r_[rows + rng.integers(0, 3, rows.shape), rng.integers(4, 40, (3, 4))]
        found = dict(
            bboxes=torch.from_numpy(np.c_[rows[:, :2], rows[:, :2] + rows[:, 2:]]),
            scores=torch.from_numpy(rng.random(len(rows))),
        )
        samples.append(dict(img_path=f'images/{name}.jpg', pred_instances=found))
    return dict(gt_dir=str(tmp_path / 'gt')), samples


def landmarks(tmp_path):
    rng = np.random.default_rng(1)
    samples = []
    for number in range(IMAGES):
        count = int(rng.integers(0, 4))
        corners = np.arange(count)[:, None] * 60 + rng.random((count, 2))
        boxes = torch.from_numpy(np.c_[corners, corners + 40]).float()
        points = boxes[:, None, :2] + torch.from_numpy(rng.random((count, 5, 2)) * 40).float()
        moved = points + torch.from_numpy(rng.normal(size=points.shape)).float()
        truth = dict(bboxes=boxes, keypoints=points, keypoints_visible=torch.ones(count, 5))
        found = dict(bboxes=boxes + 1, keypoints=moved, scores=torch.rand(count))
        samples.append(dict(img_path=f'a/{number}.jpg', gt_instances=truth, pred_instances=found))
    return dict(), samples


def coco(tmp_path):
    rng = np.random.default_rng(2)
    make_toy_coco(tmp_path / 'coco', train=1, val=IMAGES, size=96)
    ann_file = str(tmp_path / 'coco/annotations/instances_val.json')
    samples = []
    truth = COCO(ann_file)
    for image in truth.dataset['images']:
        found = truth.imgToAnns[image['id']]
        boxes = np.array([a['bbox'] for a in found], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [coco_mask.decode(a['segmentation']) for a in found]
        instances = dict(
            bboxes=torch.as_tensor(boxes + rng.integers(-3, 4, boxes.shape)),
            scores=torch.from_numpy(rng.random(len(found))),
            labels=torch.tensor([a['category_id'] - 1 for a in found], dtype=torch.long),
            masks=torch.as_tensor(np.array(masks).reshape(-1, 96, 96)).bool().roll(2, 2),
        )
        samples.append(dict(img_id=image['id'], ori_shape=(96, 96), pred_instances=instances))
    options = dict(ann_file=ann_file, metric=['bbox', 'segm'], dataset_meta=dict(classes=CLASSES))
    return options, samples


MADE = dict(wider=wider, landmarks=landmarks, coco=coco)


@pytest.mark.parametrize('world', [2, 3])
@pytest.mark.parametrize('kind', MADE)
def test_equal_to_a_single_processes(tmp_path, kind, world):
    options, samples = MADE[kind](tmp_path)
    alone = evaluate(0, 1, kind, dict(options), samples, 4)
    assert len(alone) >= 2
    assert any(0 < value < 1 for value in alone.values())
    for found in run_in(world, 'evaluate', tmp_path / 'group', kind, options, samples, 4):
        assert found == alone
