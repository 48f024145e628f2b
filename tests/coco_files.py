"""Small COCO files, and detections for them."""

from __future__ import annotations

import json

import numpy as np
import torch
from pycocotools.coco import COCO

NAMES = ('circle', 'cross', 'square')


def polygon(box):
    """The triangle in a box, as COCO's polygon."""
    x, y, width, height = box
    return [x, y, x + width, y, x, y + height]


def make_coco(path, images=3, objects=4, names=NAMES, size=64, seed=0, **changes):
    """Write an annotation file of boxes and triangles; return its content.

    ``changes`` are keys of the file, or ``annotation``: keys of every annotation.
    """
    rng = np.random.default_rng(seed)
    content = dict(
        images=[
            dict(id=n, file_name=f'{n}.jpg', height=size, width=size) for n in range(1, images + 1)
        ],
        categories=[dict(id=n, name=name) for n, name in enumerate(names, start=1)],
        annotations=[],
    )
    for image in content['images']:
        for _ in range(objects):
            x, y = rng.integers(0, size // 2, 2).tolist()
            box = [x, y, *rng.integers(8, size // 2, 2).tolist()]
            annotation = dict(
                id=len(content['annotations']) + 1,
                image_id=image['id'],
                category_id=int(rng.integers(len(names))) + 1,
                bbox=box,
                area=box[2] * box[3] / 2,
                iscrowd=0,
                segmentation=[polygon(box)],
            )
            content['annotations'].append({**annotation, **changes.get('annotation', {})})
    content.update({key: value for key, value in changes.items() if key != 'annotation'})
    path.write_text(json.dumps(content))
    return content


def evaluate(metric, content, classes=NAMES, noise=0.0, found=True, seed=0):
    """Give a metric the objects of a file as detections, and return its figures."""
    rng = np.random.default_rng(seed)
    names = {category['id']: category['name'] for category in content['categories']}
    metric.dataset_meta = dict(classes=classes)
    coco = COCO()
    coco.dataset = content
    for image in content['images']:
        annotations = [
            a
            for a in content.get('annotations', [])
            if found
            and a['image_id'] == image['id']
            and names.get(a['category_id']) in classes
            and a.get('bbox')
        ]
        height, width = image['height'], image['width']
        coco.imgs = {image['id']: image}
        boxes = np.array([a['bbox'] for a in annotations], dtype=float).reshape(-1, 4)
        masks = [
            coco.annToMask(a) if a.get('segmentation') else np.zeros((height, width))
            for a in annotations
        ]
        boxes[:, 2:] += boxes[:, :2]
        boxes += noise * rng.normal(size=boxes.shape)
        labels = [classes.index(names[a['category_id']]) for a in annotations]
        instances = dict(
            bboxes=torch.as_tensor(boxes),
            scores=torch.as_tensor(rng.integers(1, 9, len(boxes)) / 8),
            labels=torch.tensor(labels, dtype=torch.long),
            masks=torch.as_tensor(np.array(masks).reshape(-1, height, width)).bool(),
        )
        sample = dict(img_id=image['id'], ori_shape=(height, width), pred_instances=instances)
        metric.process({}, [sample])
    return metric.evaluate(size=len(content['images']))
