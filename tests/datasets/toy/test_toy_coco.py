"""The drawn COCO images: deterministic, and annotated as drawn."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from polynl_mmdet.datasets.toy.coco import CLASSES, make_toy_coco
from polynl_mmdet.errors import InputError


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_a_seed_gives_the_same_files(tmp_path, run_tool):
    make_toy_coco(tmp_path / 'a', train=3, val=2, seed=5, size=96)
    done = run_tool(
        'make_toy_data.py',
        'coco',
        tmp_path / 'b',
        *['--train', '3', '--val', '2'],
        *['--seed', '5', '--size', '96'],
    )
    assert done.returncode == 0, done.stdout
    assert digests(tmp_path / 'a') == digests(tmp_path / 'b')
    make_toy_coco(tmp_path / 'c', train=3, val=2, seed=6, size=96)
    assert digests(tmp_path / 'a') != digests(tmp_path / 'c')


def test_images_do_not_depend_on_their_number(tmp_path):
    make_toy_coco(tmp_path / 'a', train=2, val=1, size=96)
    make_toy_coco(tmp_path / 'b', train=4, val=3, size=96)
    few, many = digests(tmp_path / 'a'), digests(tmp_path / 'b')
    assert few['train/000001.jpg'] == many['train/000001.jpg']
    assert few['val/000000.jpg'] == many['val/000000.jpg']


def test_annotations_are_whole(tmp_path):
    make_toy_coco(tmp_path, train=40, val=1, size=128)
    coco = COCO(str(tmp_path / 'annotations/instances_train.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert {a['category_id'] for a in coco.dataset['annotations']} == {1, 2, 3, 4}
    sides = []
    for entry in coco.dataset['images']:
        image = cv2.imread(str(tmp_path / 'train' / entry['file_name']))
        assert image.shape == (128, 128, 3)
        masks = [coco.annToMask(a) for a in coco.imgToAnns[entry['id']]]
        assert masks
        assert np.sum(masks, axis=0).max() == 1, 'visible parts do not overlap'
        for annotation, mask in zip(coco.imgToAnns[entry['id']], masks):
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation['bbox'] == box
            assert annotation['area'] == mask.sum() == coco_mask.area(annotation['segmentation'])
            sides.append(max(box[2:]))
    assert min(sides) < 14
    assert max(sides) > 60


@pytest.mark.parametrize(
    ('option', 'value'), [('train', 0), ('val', -1), ('size', 10), ('seed', -1)]
)
def test_bad_numbers_are_named(tmp_path, option, value):
    with pytest.raises(InputError, match=f'--{option}: {value}'):
        make_toy_coco(tmp_path, **{'train': 1, 'val': 1, option: value})


def test_existing_data_are_not_overwritten_by_accident(tmp_path, run_tool):
    make_toy_coco(tmp_path, train=3, val=1, size=96)
    done = run_tool('make_toy_data.py', 'coco', tmp_path, '--train', 1, '--val', 1)
    assert done.returncode == 2
    assert '--overwrite' in done.stdout
    make_toy_coco(tmp_path, train=2, val=1, size=96, overwrite=True)
    assert len(list((tmp_path / 'train').iterdir())) == 2
