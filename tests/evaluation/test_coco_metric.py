"""OrderedCocoMetric: mmdet's figures, for any order of categories and any kind of ids."""

from __future__ import annotations

import json

import numpy as np
import pytest
from coco_files import NAMES, evaluate, make_coco
from mmdet.registry import METRICS

import polynl_mmdet  # noqa: F401

ITEMS = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100', 'AR@300', 'AR@1000',
         'AR_s@1000', 'AR_m@1000', 'AR_l@1000']  # fmt: skip
EVERYTHING = dict(metric=['bbox', 'segm', 'proposal'], metric_items=ITEMS, classwise=True)


def build(path, kind='OrderedCocoMetric', **options):
    return METRICS.build(dict(type=kind, ann_file=path and str(path), **options))


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'val.json'


def renumbered(path, content, images=str, categories=str, annotations=str):
    """Change the ids of a file."""
    content = json.loads(json.dumps(content))
    for entry in content['images']:
        entry['id'] = images(entry['id'])
    for entry in content['categories']:
        entry['id'] = categories(entry['id'])
    for entry in content['annotations']:
        entry['id'] = annotations(entry['id'])
        entry['image_id'] = images(entry['image_id'])
        entry['category_id'] = categories(entry['category_id'])
    path.write_text(json.dumps(content))
    return content


def test_figures_are_mmdets(path, data_root):
    small = make_coco(path, images=8)
    real = data_root / 'coco_mini/annotations/instances_val2017.json'
    for content, file in ((small, path), (json.loads(real.read_text()), real)):
        classes = tuple(category['name'] for category in content['categories'])
        ours, theirs = (
            evaluate(build(file, kind, **EVERYTHING), content, classes, noise=2.0)
            for kind in ('OrderedCocoMetric', 'CocoMetric')
        )
        np.testing.assert_equal(ours, theirs)
        assert 0.1 < ours['coco/bbox_mAP'] < 1


@pytest.mark.parametrize('classes', [NAMES[::-1], ('square', 'circle'), ('zebra', 'cross')])
def test_classes_in_any_order_get_their_own_ap(path, classes):
    content = make_coco(path, images=8)
    perfect = evaluate(build(path, classwise=True), content, classes)
    assert all(perfect[f'coco/{name}_precision'] == 1 for name in classes if name in NAMES)
    assert perfect['coco/bbox_mAP'] == 1
    if len(classes) == 3:
        expected = evaluate(build(path, 'CocoMetric', classwise=True), content, noise=2.0)
        figures = evaluate(build(path, classwise=True), content, classes, noise=2.0)
        for name in classes:
            assert figures[f'coco/{name}_precision'] == expected[f'coco/{name}_precision']


@pytest.mark.parametrize(
    'ids',
    [
        dict(images=lambda n: n - 1, categories=lambda n: n - 1, annotations=lambda n: n - 1),
        dict(images=lambda n: f'img{n}', categories='c{}'.format, annotations='7f3a-{}'.format),
        dict(images=str, categories=lambda n: 50 - n, annotations=lambda n: 1),
        dict(images=lambda n: n * 10**12, categories=lambda n: -n, annotations=lambda n: None),
    ],
    ids=['from 0', 'text', 'equal', 'large'],
)
def test_any_ids_give_the_same_figures(path, ids):
    content = make_coco(path, images=8)
    expected = evaluate(build(path, 'CocoMetric', **EVERYTHING), content, noise=2.0)
    other = renumbered(path, content, **ids)
    metric = build(path, **EVERYTHING)
    np.testing.assert_equal(evaluate(metric, other, noise=2.0), expected)
    assert evaluate(metric, other)['coco/bbox_mAP'] == 1


@pytest.mark.parametrize(
    'stray',
    [
        dict(bbox=[50, 50, 0, 0], segmentation=[]),
        dict(bbox=[5, 5, 9, 9], segmentation=None),
        dict(bbox=[90, 90, 9, 9], segmentation=[[3, 3]]),
        dict(bbox=[5, 5, 9, 9]),
        dict(bbox=[5, 5, 9, 9], ignore=1),
        dict(bbox=None, segmentation=[]),
        dict(),
    ],
)
def test_a_stray_object_is_no_crash(path, stray):
    content = make_coco(path)
    before = evaluate(build(path, metric=['bbox', 'segm']), content)
    content['annotations'].append(dict(id='s', image_id=1, category_id=1, **stray))
    path.write_text(json.dumps(content))
    found = dict(content, annotations=content['annotations'][:-1])
    figures = evaluate(build(path, metric=['bbox', 'segm']), found)
    assert before['coco/segm_mAP'] == 1
    assert (figures['coco/bbox_mAP'] < 1) == bool(stray.get('bbox'))


@pytest.mark.parametrize(
    'metric', ['bbox', ['bbox', 'segm'], ['bbox', 'proposal'], 'proposal_fast']
)
def test_no_detection_gives_no_figure(path, metric):
    content = make_coco(path)
    options = dict(metric=metric, classwise=True)
    assert evaluate(build(path, **options), content, found=False) == {}


def test_format_only_writes_the_files_own_ids(path, tmp_path):
    content = renumbered(path, make_coco(path), images='img{}'.format, categories='c{}'.format)
    del content['annotations']  # COCO's own test-dev file.
    truth = json.loads(path.read_text())
    path.write_text(json.dumps(content))
    options = dict(format_only=True, outfile_prefix=str(tmp_path / 'out'))
    assert evaluate(build(path, **options), truth) == {}
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert {(w['image_id'], w['category_id']) for w in written} == {
        (a['image_id'], a['category_id']) for a in truth['annotations']
    }
