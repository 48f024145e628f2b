"""OrderedCocoDataset: labels by name, nothing trained on silently, all that mmdet reads is read."""

from __future__ import annotations

import json

import pytest
from coco_files import NAMES, make_coco
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger

import polynl_mmdet  # noqa: F401

BOXES = [dict(type='LoadAnnotations', with_bbox=True)]
MASKS = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
POLYGONS = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False)]


def build(path, kind='OrderedCocoDataset', classes=NAMES, pipeline=BOXES, **options):
    return DATASETS.build(
        dict(
            type=kind,
            ann_file=str(path),
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            pipeline=pipeline,
            serialize_data=False,  # Which collects garbage, for a second.
            **options,
        )
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'train.json'


@pytest.fixture
def lines(monkeypatch):
    """list: what is logged."""
    logger, seen = MMLogger.get_current_instance(), []
    monkeypatch.setattr(logger, 'log', lambda level, message, *_: seen.append(str(message)))
    monkeypatch.setattr(logger, 'handle', lambda record: seen.append(record.getMessage()))
    monkeypatch.setattr(logger, 'level', 20)
    return seen


def labels(dataset):
    """dict: the class names of each image's boxes."""
    found = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for instance in info['instances']:
            name = dataset.metainfo['classes'][instance['bbox_label']]
            found[info['img_id'], tuple(instance['bbox'])] = name
    return found


def expected_labels(content, classes=NAMES):
    names = {category['id']: category['name'] for category in content['categories']}
    return {
        (a['image_id'], (x, y, x + w, y + h)): names[a['category_id']]
        for a in content['annotations']
        for x, y, w, h in [a['bbox']]
        if names[a['category_id']] in classes
    }


@pytest.mark.parametrize('classes', [NAMES, NAMES[::-1], ('square', 'circle'), ('square', 'zebra')])
@pytest.mark.parametrize('order', [(0, 1, 2), (2, 0, 1)])
def test_labels_follow_the_names(path, classes, order):
    content = make_coco(path)
    content['categories'] = [content['categories'][i] for i in order]
    path.write_text(json.dumps(content))
    assert labels(build(path, classes=classes)) == expected_labels(content, classes)


def test_a_class_that_the_file_lacks_is_reported(path, lines):
    make_coco(path)
    build(path, classes=('circle', 'sqare'))
    assert any("'sqare'; did you mean 'square'?" in line for line in lines)


def test_a_name_that_occurs_twice_is_one_class(path):
    """As in exports of Roboflow, whose category 0 repeats the name."""
    content = make_coco(path, names=('ball', 'ball'))
    assert labels(build(path, classes=('ball',))) == expected_labels(content, ('ball',))


@pytest.mark.parametrize('wrap', ['x{}', '{}'])
def test_ids_of_any_kind(path, wrap):
    content = make_coco(path)
    keys = ('images', 'id'), ('categories', 'id'), ('annotations', 'image_id', 'category_id', 'id')
    for part, *names in keys:
        for entry in content[part]:
            entry.update({name: wrap.format(entry[name] - 1) for name in names})
    path.write_text(json.dumps(content))
    assert labels(build(path)) == expected_labels(content)


RLE = dict(size=[64, 64], counts=[0, 4096])


@pytest.mark.parametrize(
    ('annotation', 'options', 'words'),
    [
        ({}, dict(classes='circle'), r"got classes='circle', .*\('circle',\)"),
        ({}, dict(classes=('zebra',)), r"'circle', 'cross', .*none of .*'zebra'"),
        (dict(iscrowd=1), {}, '3 of 3 images, 12 objects .*12 crowd'),
        (dict(iscrowd='1'), {}, '12 crowd'),
        (dict(segmentation=RLE), dict(pipeline=POLYGONS), r'12 without a mask \(poly2mask=False'),
        (dict(segmentation=[]), dict(pipeline=MASKS), '12 without a mask'),
        (dict(segmentation=None), dict(pipeline=MASKS), '12 without a mask'),
        (dict(segmentation=[[3, 3]]), dict(pipeline=MASKS), '12 without a mask'),
        ({}, dict(filter_cfg=dict(filter_empty_gt=True, min_size=65)), '0 of 3 images.*65'),
    ],
)
def test_what_leaves_nothing_to_train_on_is_an_error(path, annotation, options, words):
    make_coco(path, annotation=annotation)
    with pytest.raises(ValueError, match=rf'train\.json: .*{words}'):
        build(path, **options)


@pytest.mark.parametrize('content', ['{"images": [', '{}', '{"images": [{}]}', None])
def test_a_file_that_is_not_coco_or_not_there_is_named(path, content):
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r'train\.json'):
        build(path)


@pytest.mark.parametrize('crowd', ['0', None])
def test_a_text_of_0_is_no_crowd(path, crowd):
    make_coco(path, annotation=dict(iscrowd=crowd))
    instances = build(path).get_data_info(0)['instances']
    assert not any(instance['ignore_flag'] for instance in instances)


def test_what_training_needs_is_not_asked_of_a_test(path):
    content = make_coco(path, annotation=dict(iscrowd=1))
    assert len(build(path, test_mode=True)) == 3
    del content['annotations']  # COCO's own test-dev file.
    path.write_text(json.dumps(content))
    assert len(build(path, test_mode=True)) == 3
    make_coco(path, annotation=dict(segmentation=RLE))
    assert len(build(path, pipeline=MASKS)) == len(build(path)) == 3
    make_coco(path, objects=0)
    assert len(build(path, filter_cfg=dict(filter_empty_gt=False))) == 3


def test_what_is_skipped_is_logged(path, lines):
    content = make_coco(path)
    first, second, third, fourth, *_ = content['annotations']
    del first['bbox'], second['segmentation']
    third.update(iscrowd=1)
    fourth.update(bbox=[200, 200, 5, 5])
    content['images'].append(dict(id=9, file_name='9.jpg', height=8, width=64))
    path.write_text(json.dumps(content))
    build(path, pipeline=MASKS, filter_cfg=dict(filter_empty_gt=True, min_size=32))
    (line,) = [line for line in lines if '3 of 4 images' in line]
    for part in ('11 objects', '1 too small, outside', '1 crowd', '1 without a mask'):
        assert part in line
    assert any('1 annotations without a box: 1' in line for line in lines)


def test_an_object_without_a_mask_is_ignored_in_training(path):
    """As mmdet does with a mask of two points; without a mask it ends in a KeyError."""
    content = make_coco(path)
    for annotation, mask in zip(content['annotations'], ([], None, [[1, 1]], [[1, 1], 8 * [9]])):
        annotation['segmentation'] = mask
    path.write_text(json.dumps(content))
    dataset = build(path, pipeline=MASKS)
    loaded = dataset.pipeline.transforms[0](dict(dataset.get_data_info(0), ori_shape=(64, 64)))
    assert loaded['gt_ignore_flags'].tolist() == [True, True, True, False]
