"""The far-cue images: deterministic, annotated as drawn, the class far away."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from polynl_mmdet.datasets.toy.far_cue import CLASSES, HEIGHT, MIN_DISTANCE, WIDTH, make_toy_far_cue
from polynl_mmdet.errors import InputError


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_a_seed_gives_the_same_files(tmp_path, run_tool):
    make_toy_far_cue(tmp_path / 'a', train=3, val=2, seed=5)
    done = run_tool(
        'make_toy_data.py',
        'far-cue',
        tmp_path / 'b',
        *['--train', '3', '--val', '2', '--seed', '5'],
    )
    assert done.returncode == 0, done.stdout
    assert digests(tmp_path / 'a') == digests(tmp_path / 'b')
    make_toy_far_cue(tmp_path / 'c', train=3, val=2, seed=6)
    assert digests(tmp_path / 'a') != digests(tmp_path / 'c')


def test_the_class_is_the_cues_and_far_from_every_shape(tmp_path):
    make_toy_far_cue(tmp_path, train=60, val=1)
    coco = COCO(str(tmp_path / 'annotations/instances_train.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    labels, sides, kinds = [], [], []
    for entry in coco.dataset['images']:
        image = cv2.imread(str(tmp_path / 'train' / entry['file_name'])).astype(int)
        assert image.shape == (HEIGHT, WIDTH, 3)
        blue, _, red = image.transpose(2, 0, 1)
        # JPEG blurs colours: the strong ones only.
        cues = {0: (red - blue > 110), 1: (blue - red > 110)}
        annotations = coco.imgToAnns[entry['id']]
        assert 2 <= len(annotations) <= 4
        classes = {a['category_id'] - 1 for a in annotations}
        (label,) = classes
        assert cues[label].sum() > 100
        assert cues[1 - label].sum() == 0
        cue_columns = np.nonzero(cues[label].any(axis=0))[0]
        masks = [coco.annToMask(a) for a in annotations]
        assert np.sum(masks, axis=0).max() == 1
        for annotation, mask in zip(annotations, masks):
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation['bbox'] == box
            assert annotation['area'] == mask.sum()
            assert image[mask > 0].min() > 150, 'a shape is white in either class'
            assert np.abs(xs[:, None] - cue_columns).min() >= MIN_DISTANCE
            kinds.append(mask.sum() == box[2] * box[3])
        labels.append(label)
        sides.append(cue_columns.min() > WIDTH / 2)
    assert 0.25 < np.mean(labels) < 0.75
    assert 0.25 < np.mean(sides) < 0.75
    # Neither class has its own shape.
    assert 0.3 < np.mean(kinds) < 0.7


@pytest.mark.parametrize(('option', 'value'), [('train', 0), ('val', -1), ('seed', -1)])
def test_bad_numbers_are_named(tmp_path, option, value):
    with pytest.raises(InputError, match=f'--{option}: {value}'):
        make_toy_far_cue(tmp_path, **{'train': 1, 'val': 1, option: value})


def test_existing_data_are_not_overwritten_by_accident(tmp_path, run_tool):
    make_toy_far_cue(tmp_path, train=3, val=1)
    done = run_tool('make_toy_data.py', 'far-cue', tmp_path, '--train', 1, '--val', 1)
    assert done.returncode == 2
    assert '--overwrite' in done.stdout
    make_toy_far_cue(tmp_path, train=2, val=1, overwrite=True)
    assert len(list((tmp_path / 'train').iterdir())) == 2
