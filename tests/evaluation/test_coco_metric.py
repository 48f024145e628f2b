"""COCO AP with and without detections."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from demo.toy_coco import CLASSES, make_toy_coco
from polynl_mmdet.datasets import CheckedCocoDataset
from polynl_mmdet.errors import InputError


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


@pytest.mark.parametrize('chosen', [('cross', 'circle'), ('triangle',), None])
def test_mmdets_metric_beside_our_dataset_agrees(coco, tmp_path, chosen):
    """Also for categories in no order of ids, with gaps, and images in another order."""
    path = tmp_path / 'annotations/instances_val.json'
    content = json.loads(path.read_text())
    names, ids = ('triangle', 'cross', 'rectangle', 'circle'), (30, 7, 8, 2)
    new_id = {CLASSES.index(name) + 1: number for name, number in zip(names, ids)}
    content['categories'] = [dict(id=number, name=name) for name, number in zip(names, ids)]
    for annotation in content['annotations']:
        annotation['category_id'] = new_id[annotation['category_id']]
    content['images'].reverse()
    path.write_text(json.dumps(content))
    classes = tuple(name for name in names if chosen is None or name in chosen)
    options = dict(ann_file=str(path), metric=['bbox', 'segm'], classwise=True)
    dataset = CheckedCocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=str(tmp_path / 'val')),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=[],
    )
    found = []
    for kind in ('CheckedCocoMetric', 'CocoMetric'):
        metric = METRICS.build(dict(type=kind, **options))
        metric.dataset_meta = dataset.metainfo
        rng = np.random.default_rng(0)
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            rows = info['instances']
            boxes = np.array([row['bbox'] for row in rows]).reshape(-1, 4)
            masks = [coco_mask.decode(row['mask']) for row in rows]
            instances = dict(
                bboxes=torch.as_tensor(boxes + rng.integers(-2, 3, boxes.shape)),
                scores=torch.as_tensor(rng.random(len(rows))),
                # One in five goes by another name.
                labels=torch.tensor(
                    [rng.integers(len(classes)) if rng.random() < 0.2 else row['bbox_label']
                     for row in rows], dtype=torch.long),
                masks=torch.as_tensor(np.array(masks).reshape(-1, 96, 96)).bool(),
            )  # fmt: skip
            sample = dict(img_id=info['img_id'], ori_shape=(96, 96), pred_instances=instances)
            metric.process({}, [sample])
        found.append(metric.evaluate(size=len(dataset)))
    np.testing.assert_equal(found[0], found[1])
    assert 0 < found[0]['coco/bbox_mAP'] < 1
    assert set(found[0]) >= {f'coco/{name}_precision' for name in classes}


def random_results(annotations, rng):
    """Detections of one image: annotated objects that are moved, and some of them twice."""
    kept = [a for a in annotations if rng.random() < 0.8 and not a.get('iscrowd')]
    boxes, labels, masks = [], [], []
    for annotation in kept + kept[:2]:
        x, y, width, height = annotation['bbox']
        dx, dy = rng.normal(0, 0.08, 2) * (width, height)
        boxes.append([x + dx, y + dy, x + dx + width * rng.uniform(0.8, 1.2), y + dy + height])
        labels.append(annotation['category_id'])
        masks.append(np.roll(annotation['mask'], rng.integers(-3, 4, 2), axis=(0, 1)))
    return boxes, labels, masks


@pytest.mark.parametrize('data', ['real', 'drawn'])
def test_faster_coco_eval_gives_the_same_figures(data, tmp_path, request):
    """Every figure that mmdet reports, box and mask, also by class, area and number."""
    pytest.importorskip('faster_coco_eval')
    if data == 'real':
        root = request.getfixturevalue('data_root') / 'coco_mini'
        path = root / 'annotations/instances_val2017.json'
    else:
        make_toy_coco(tmp_path, train=1, val=8, size=96)
        path = tmp_path / 'annotations/instances_val.json'
    index = COCO(str(path))
    categories = [category['id'] for category in index.dataset['categories']]
    classes = [category['name'] for category in index.dataset['categories']]
    items = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100', 'AR@300', 'AR@1000',
             'AR_s@1000', 'AR_m@1000', 'AR_l@1000']  # fmt: skip
    found = {}
    for backend in ('pycocotools', 'faster'):
        rng = np.random.default_rng(0)
        metric = METRICS.build(
            dict(
                type='CheckedCocoMetric',
                ann_file=str(path),
                metric=['bbox', 'segm', 'proposal'],
                metric_items=items,
                classwise=True,
                backend=backend,
            )
        )
        metric.dataset_meta = dict(classes=classes)
        for image in index.dataset['images']:
            annotations = [
                dict(a, mask=index.annToMask(a).astype(bool)) for a in index.imgToAnns[image['id']]
            ]
            boxes, labels, masks = random_results(annotations, rng)
            size = image['height'], image['width']
            instances = dict(
                bboxes=torch.tensor(boxes).reshape(-1, 4),
                # Few different scores: ties must be broken alike.
                scores=torch.from_numpy(rng.integers(1, 6, len(boxes)) / 5),
                labels=torch.tensor([categories.index(label) for label in labels]).long(),
                masks=torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, *size)),
            )
            sample = dict(img_id=image['id'], ori_shape=size, pred_instances=instances)
            metric.process({}, [sample])
        found[backend] = metric.evaluate(size=len(index.dataset['images']))
    np.testing.assert_equal(found['faster'], found['pycocotools'])
    assert 0.1 < found['faster']['coco/segm_mAP_50'] < 1
    assert len(found['faster']) >= 3 * len(items)


def test_backends_are_named(coco, tmp_path):
    with pytest.raises(InputError, match="backend: 'fast'; accepted: 'pycocotools', 'faster'"):
        evaluate(coco, tmp_path, perfect=True, backend='fast')
    with pytest.raises(InputError, match='use_mp_eval'):
        evaluate(coco, tmp_path, perfect=True, backend='faster', use_mp_eval=True)
