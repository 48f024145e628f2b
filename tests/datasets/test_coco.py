"""COCO annotation files are compared with the config."""

from __future__ import annotations

import itertools
import json
import logging
import random
import shutil

import pytest
from mmdet.registry import DATASETS, METRICS
from mmengine.logging import MMLogger

from demo.toy_coco import CLASSES, make_toy_coco
from polynl_mmdet.errors import InputError


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    path = tmp_path_factory.mktemp('coco')
    make_toy_coco(path, train=3, val=1, seed=1, size=96)
    return path


@pytest.fixture
def root(drawn, tmp_path):
    """The annotation files, which are all that is read here, to be changed."""
    shutil.copytree(drawn / 'annotations', tmp_path / 'annotations')
    return tmp_path


def build(root, classes=CLASSES, ann_file='annotations/instances_train.json', **options):
    return DATASETS.build(
        dict(
            type='CheckedCocoDataset',
            data_root=str(root),
            ann_file=ann_file,
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=classes),
            pipeline=[],
            **options,
        )
    )


def test_a_fitting_file_is_read(root):
    dataset = build(root)
    assert len(dataset) == 3
    assert dataset.get_data_info(0)['instances']


def test_left_out_categories_are_counted(root, monkeypatch):
    with open(root / 'annotations/instances_train.json', encoding='utf-8') as file:
        annotations = json.load(file)['annotations']
    left_out = sum(a['category_id'] != 1 for a in annotations)
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'level', logging.INFO)
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.addHandler(handler)
    try:
        build(root, classes=CLASSES[:1])
    finally:
        logger.removeHandler(handler)
    assert any(f'{left_out} of {len(annotations)} annotations' in line for line in seen)


def test_a_missing_file_is_named(root):
    with pytest.raises(InputError, match=r'none\.json: no such annotation file'):
        build(root, ann_file='annotations/none.json')


@pytest.mark.parametrize('kept', [0, 1, 100, -2])
def test_a_cut_off_file_is_named(root, kept):
    path = root / 'annotations/instances_train.json'
    text = path.read_text()
    path.write_text(text[:kept])
    with pytest.raises(InputError, match=r'instances_train\.json: not whole JSON'):
        build(root)


@pytest.mark.parametrize('content', ['[]', '{}', '{"images": [], "annotations": []}', '3'])
def test_json_that_is_not_coco_is_named(root, content):
    (root / 'annotations/instances_train.json').write_text(content)
    with pytest.raises(InputError, match=r'instances_train\.json: .*(not COCO|no )'):
        build(root)


def test_lacking_classes_are_named(root):
    with pytest.raises(InputError) as caught:
        build(root, classes=('circle', 'zebra'))
    message = str(caught.value)
    assert "not 'zebra'" in message
    assert "'circle'" in message
    assert 'num_classes' in message


def shuffled(root, names, ids, seed=0, split='train'):
    """Give the toy file these categories, in this order and with these ids; entries shuffled."""
    path = root / f'annotations/instances_{split}.json'
    content = json.loads(path.read_text())
    new_id = {CLASSES.index(name) + 1: number for name, number in zip(names, ids)}
    content['categories'] = [dict(id=number, name=name) for name, number in zip(names, ids)]
    content['annotations'] = [
        dict(annotation, category_id=new_id[annotation['category_id']])
        for annotation in content['annotations']
    ]
    for section in ('images', 'annotations'):
        random.Random(seed).shuffle(content[section])
    path.write_text(json.dumps(content))
    return content


ORDERS = [
    (('circle', 'rectangle', 'triangle', 'cross'), (1, 2, 3, 4)),
    (('triangle', 'circle', 'cross', 'rectangle'), (7, 90, 3, 40)),  # Gaps, and not by id.
    (('cross', 'triangle', 'rectangle', 'circle'), (4, 3, 2, 1)),
]


@pytest.mark.parametrize(('names', 'ids'), ORDERS)
@pytest.mark.parametrize(
    'chosen', [None, ('circle', 'cross'), ('rectangle', 'triangle'), ('cross',)]
)
def test_labels_are_those_of_the_names(root, names, ids, chosen):
    content = shuffled(root, names, ids)
    classes = tuple(name for name in names if chosen is None or name in chosen)
    dataset = build(root, classes)
    name_of = dict(zip(ids, names))
    boxes = {}
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        key = annotation['image_id'], (x, y, x + width, y + height)
        boxes[key] = name_of[annotation['category_id']]
    seen = 0
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for instance in info['instances']:
            name = boxes[info['img_id'], tuple(instance['bbox'])]
            assert dataset.metainfo['classes'][instance['bbox_label']] == name
            seen += 1
    assert seen == sum(name in classes for name in boxes.values())


def build_for_test(root, classes):
    build(root, classes, test_mode=True)


def give_to_metric(root, classes):
    """As an evaluation loop does when it is built, before training starts."""
    ann_file = str(root / 'annotations/instances_train.json')
    metric = METRICS.build(dict(type='CheckedCocoMetric', ann_file=ann_file))
    metric.dataset_meta = dict(classes=classes)


@pytest.mark.parametrize(('names', 'ids'), ORDERS)
@pytest.mark.parametrize(
    'chosen', [('circle', 'rectangle', 'triangle', 'cross'), ('rectangle', 'cross')]
)
@pytest.mark.parametrize('give', [build, build_for_test, give_to_metric])
def test_classes_in_another_order_end_with_the_order_to_write(root, names, ids, chosen, give):
    shuffled(root, names, ids)
    right = tuple(name for name in names if name in chosen)
    give(root, right)
    for classes in set(itertools.permutations(chosen)) - {right}:
        with pytest.raises(InputError) as caught:
            give(root, classes)
        message = str(caught.value)
        assert 'instances_train.json: ' in message
        assert f'classes={right}' in message
        assert '\n' not in message


def test_two_categories_of_one_name(root):
    path = root / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    content['categories'][1]['name'] = 'circle'
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="two categories 'circle'"):
        build(root, classes=('circle',))
