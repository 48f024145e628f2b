"""COCO AP with and without detections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from polynl_mmdet.datasets.toy.coco import CLASSES, make_toy_coco


@pytest.fixture
def coco(tmp_path):
    make_toy_coco(tmp_path, train=1, val=3, size=96)
    return COCO(str(tmp_path / 'annotations/instances_val.json'))


def evaluate(coco, tmp_path, perfect, **kwargs):
    metric = METRICS.build(
        dict(
            type='CheckedCocoMetric',
            ann_file=str(tmp_path / 'annotations/instances_val.json'),
            metric=['bbox', 'segm'],
            **kwargs,
        )
    )
    metric.dataset_meta = dict(classes=CLASSES)
    for image in coco.dataset['images']:
        found = coco.imgToAnns[image['id']] if perfect else []
        masks = [coco_mask.decode(a['segmentation']) for a in found]
        boxes = np.array([a['bbox'] for a in found], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = dict(
            bboxes=torch.as_tensor(boxes),
            scores=torch.ones(len(found)),
            labels=torch.tensor([a['category_id'] - 1 for a in found], dtype=torch.long),
            masks=torch.as_tensor(np.array(masks).reshape(-1, 96, 96)).bool(),
        )
        sample = dict(img_id=image['id'], ori_shape=(96, 96), pred_instances=instances)
        metric.process({}, [sample])
    return metric.evaluate(size=3)


def test_perfect_detections(coco, tmp_path):
    metrics = evaluate(coco, tmp_path, perfect=True)
    assert metrics['coco/bbox_mAP_50'] == metrics['coco/segm_mAP'] == 1.0


def test_no_detection_is_an_ap_of_zero(coco, tmp_path):
    metrics = evaluate(coco, tmp_path, perfect=False)
    assert metrics['coco/segm_mAP'] == metrics['coco/bbox_mAP_50'] == 0.0
    assert set(metrics) == {
        f'coco/{kind}_{item}'
        for kind in ('bbox', 'segm')
        for item in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
    }


def test_chosen_items_only(coco, tmp_path):
    metrics = evaluate(coco, tmp_path, perfect=False, metric_items=['mAP_50'])
    assert metrics == {'coco/bbox_mAP_50': 0.0, 'coco/segm_mAP_50': 0.0}
