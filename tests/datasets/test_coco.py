"""COCO annotation files are compared with the config."""

from __future__ import annotations

import json
import logging

import pytest
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger

from polynl_mmdet.datasets.toy.coco import CLASSES, make_toy_coco
from polynl_mmdet.errors import InputError


@pytest.fixture
def root(tmp_path):
    make_toy_coco(tmp_path, train=3, val=1, seed=1, size=96)
    return tmp_path


def build(root, classes=CLASSES, ann_file='annotations/instances_train.json'):
    return DATASETS.build(
        dict(
            type='CheckedCocoDataset',
            data_root=str(root),
            ann_file=ann_file,
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=classes),
            pipeline=[],
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
