"""Drawn annotation files: our data set and metric give mmdet's samples and figures."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from coco_files import NAMES, evaluate, polygon
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS, METRICS

import polynl_mmdet  # noqa: F401

SIZE = 64
MISSING = object()
sides = st.one_of(st.integers(4, SIZE), st.integers(4, SIZE), st.floats(0.25, SIZE), st.just(0))
boxes = st.tuples(st.integers(-5, SIZE), st.integers(-5, SIZE), sides, sides).map(list)


def masks(box):
    """Polygons, good and degenerate, run lengths, and nothing."""
    full = dict(size=[SIZE, SIZE], counts=[100, 50, SIZE * SIZE - 150])
    good = [[polygon(box)], [polygon(box)], [polygon(box), [3, 3]], [polygon(box), [1, 1, 5, 5]]]
    return st.sampled_from([*good, full, [[3, 3]], [], None, MISSING])


@st.composite
def annotations(draw, number, images, categories):
    box = draw(boxes)
    annotation = dict(
        id=number,
        image_id=draw(st.sampled_from(images)),
        category_id=draw(st.sampled_from(categories)),
        bbox=box,
        area=draw(st.sampled_from([box[2] * box[3]] * 4 + [box[2] * box[3] / 2, 0])),
        segmentation=draw(masks(box)),
        iscrowd=draw(st.sampled_from([0] * 6 + [1, True])),
        ignore=draw(st.sampled_from([MISSING] * 4 + [0, 1])),
    )
    return {key: value for key, value in annotation.items() if value is not MISSING}


@st.composite
def files(draw):
    """COCO files that mmdet's data set reads; classes in the order of the file."""
    ids = st.lists(st.integers(0, 10**6), min_size=1, max_size=3, unique=True)
    images, categories = draw(ids), sorted(draw(ids))
    count = draw(st.integers(0, 9))
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=SIZE, width=SIZE) for i in images],
        categories=[dict(id=c, name=name) for c, name in zip(categories, NAMES)],
        annotations=[draw(annotations(n + 1, images, [*categories, 7])) for n in range(count)],
    )


def samples(kind, path, classes, **options):
    """What a data set holds, or the error that ends it."""
    common = dict(
        ann_file=str(path),
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        pipeline=[],
        serialize_data=False,
    )
    try:
        dataset = DATASETS.build(dict(type=f'{kind}Dataset', **common, **options))
    except (ValueError, KeyError) as error:
        return error
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def figures(kind, path, content, classes, metrics):
    cfg = dict(type=f'{kind}Metric', ann_file=str(path), metric=metrics, classwise=True)
    metric = METRICS.build(cfg)
    valid = [a for a in content['annotations'] if isinstance(a.get('segmentation'), (list, dict))]
    found = [a for a in valid if a['segmentation'] and len(str(a['segmentation'])) > 20]
    try:
        return evaluate(metric, {**content, 'annotations': found}, classes, noise=1.0)
    except Exception as error:  # pycocotools fails in many ways on objects without a mask.
        if kind == 'OrderedCoco':
            raise
        return error


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(files(), st.booleans(), st.sampled_from([None, dict(filter_empty_gt=True, min_size=32)]))
def test_samples_and_figures_are_mmdets(content, test_mode, filter_cfg):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'a.json')
        path.write_text(json.dumps(content))
        classes = tuple(category['name'] for category in content['categories'])
        options = dict(test_mode=test_mode, filter_cfg=filter_cfg)
        theirs = samples('Coco', path, classes, **options)
        ours = samples('OrderedCoco', path, classes, **options)
        if isinstance(ours, ValueError):
            assert 'nothing is left' in str(ours)
            objects = [] if isinstance(theirs, Exception) else theirs
            instances = [i for info in objects for i in info['instances']]
            assert all(instance['ignore_flag'] for instance in instances)
        elif not isinstance(theirs, Exception):
            assert ours == theirs
        for metrics in (['bbox', 'proposal'], ['segm']):
            theirs, ours = (
                figures(kind, path, content, classes, metrics) for kind in ('Coco', 'OrderedCoco')
            )
            if not isinstance(theirs, Exception):
                np.testing.assert_equal(ours, theirs)
