"""The study on real images: its scores against pycocotools', and a run on a few images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from polynl_mmdet.errors import InputError
from studies.real_images.run import find_part
from studies.real_images.scores import (
    ImageMatches,
    difference_interval,
    read_detections,
    read_truth,
)

ROOT = Path(__file__).parents[2]
ALL = slice(0, 10)


def index(images, annotations):
    truth = COCO()
    truth.dataset = {
        'images': [{'id': i} for i in images],
        'annotations': annotations,
        'categories': [{'id': 1, 'name': 'thing'}],
    }
    with redirect_stdout(StringIO()):
        truth.createIndex()
    return truth


def draw(seed, images=12, noise=3.0, digits=15):
    """Objects and detections near them, some missed, some false."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 4)):
            side = float(rng.choice([20, 60, 150]))
            box = [*rng.uniform(0, 300, 2).tolist(), side, side]
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=image, category_id=1, bbox=box,
                    area=side**2, iscrowd=int(rng.random() < 0.1),
                )
            )  # fmt: skip
            if rng.random() < 0.8:
                near = (np.array(box) + rng.normal(0, noise, 4)).tolist()
                detections.append(_detection(image, near, rng, digits))
        if rng.random() < 0.5:
            detections.append(_detection(image, [*rng.uniform(0, 300, 2), 50.0, 50.0], rng, digits))
    return index(range(1, images + 1), annotations), detections


def _detection(image, box, rng, digits):
    return dict(image_id=image, category_id=1, bbox=list(box), score=round(rng.random(), digits))


def by_pycocotools(truth, detections):
    """AP over the ten thresholds."""
    with redirect_stdout(StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluator.params.maxDets = [100]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval['precision'][:, :, 0, 0, 0].mean()


@pytest.mark.parametrize('seed', range(3))
def test_average_precision_is_that_of_pycocotools(seed):
    truth, detections = draw(seed, digits=1)  # Many scores are equal.
    found = ImageMatches(truth, detections, 'bbox').ap(ALL)
    assert found == pytest.approx(by_pycocotools(truth, detections), abs=1e-12)


@pytest.mark.parametrize('seed', range(3))
def test_an_image_that_counts_several_times_is_several_images(seed):
    truth, detections = draw(seed)
    drawn = np.random.default_rng(seed).integers(1, 13, 12)
    annotations, copies = [], []
    for number, image in enumerate(drawn.tolist(), 1):
        for annotation in truth.imgToAnns[image]:
            annotations.append(dict(annotation, id=len(annotations) + 1, image_id=number))
        copies += [dict(d, image_id=number) for d in detections if d['image_id'] == image]
    expected = by_pycocotools(index(range(1, 13), annotations), copies)
    weights = np.bincount(drawn - 1, minlength=12).astype(float)
    found = ImageMatches(truth, detections, 'bbox').ap(ALL, weights)
    assert found == pytest.approx(expected, abs=1e-12)


def test_nothing_detected_is_an_average_precision_of_0():
    assert ImageMatches(draw(0)[0], [], 'bbox').ap(ALL) == 0


def test_the_interval_of_a_difference():
    truth, good = draw(3, images=80, noise=1.0)
    worse = [d for d in good if d['image_id'] % 2]
    better, control = (ImageMatches(truth, found, 'bbox') for found in (good, worse))
    mean, low, high = difference_interval([better] * 3, [control] * 3, ALL, resamples=200)
    assert mean == pytest.approx(better.ap(ALL) - control.ap(ALL))
    assert 0 < low < mean < high
    assert difference_interval([better] * 2, [better] * 2, ALL, resamples=50) == (0, 0, 0)


@pytest.mark.parametrize('place', ['annotations/some.json', 'some.json', 'images/some.json'])
def test_images_are_found_beside_an_annotation_file(tmp_path, place):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.jpg').touch()
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({'images': [{'file_name': 'a.jpg'}]}))
    assert find_part('person', str(file), tmp_path) == (file, tmp_path / 'images')
    file.write_text(json.dumps({'images': [{'file_name': 'b.jpg'}]}))
    with pytest.raises(InputError, match=r'some\.json: b\.jpg is in no folder beside it'):
        find_part('person', str(file), tmp_path)


def test_faces_are_scored_from_prediction_files(data_root, tmp_path):
    file = data_root / 'real_study/face/wider_face_split/wider_val_bbx_gt.txt'
    truth = read_truth(file)
    assert len(truth.imgs) == 100
    assert len(truth.getAnnIds(iscrowd=False)) == 2294
    image = max(truth.dataset['images'], key=lambda image: len(truth.imgToAnns[image['id']]))
    faces = [a['bbox'] for a in truth.imgToAnns[image['id']]]
    event, _, name = image['file_name'].rpartition('/')
    (tmp_path / 'found' / event).mkdir(parents=True)
    rows = '\n'.join(f'{x} {y} {w} {h} 0.9' for x, y, w, h in faces)
    stem = name[: -len('.jpg')]
    (tmp_path / 'found' / event / f'{stem}.txt').write_text(f'{stem}\n{len(faces)}\n{rows}\n')
    found = read_detections(truth, tmp_path / 'found', 'bbox')
    assert [d['bbox'] for d in found] == faces
    assert 0 < ImageMatches(truth, found, 'bbox').ap(ALL) < 0.3


@pytest.mark.slow
def test_a_study_of_a_few_images(data_root, tmp_path):
    words = ['--data', str(data_root), '--quick', '--task', 'person', '--layers', 'PolyNL-LN']
    done = subprocess.run(
        [sys.executable, '-m', 'studies.real_images.run', *words, '--test', 'val'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / 'real_images.json').read_text())
    assert len(report['runs']) == 1
    assert set(report['scores']['person/val']['ap']['PolyNL-LN']) == {
        'bbox AP', 'bbox AP50', 'segm AP', 'segm AP50',
    }  # fmt: skip
    assert '| PolyNL-LN |' in done.stdout
