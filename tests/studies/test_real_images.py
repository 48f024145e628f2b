"""The study on real images: its scores against pycocotools', and a run on a few images."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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

    def detect(image, box):
        score = round(rng.random(), digits)
        detections.append(dict(image_id=image, category_id=1, bbox=box, score=score))

    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 4)):
            side = float(rng.choice([20, 60, 150]))
            box = [*rng.uniform(0, 300, 2).tolist(), side, side]
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=1,
                                    bbox=box, area=side**2,
                                    iscrowd=int(rng.random() < 0.1)))  # fmt: skip
            if rng.random() < 0.8:
                detect(image, (np.array(box) + rng.normal(0, noise, 4)).tolist())
        if rng.random() < 0.5:
            detect(image, [*rng.uniform(0, 300, 2).tolist(), 50.0, 50.0])
    return index(range(1, images + 1), annotations), detections


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
    """Where many scores are equal, and where an image counts several times, as in a bootstrap."""
    truth, detections = draw(seed, digits=1)
    found = ImageMatches(truth, detections, 'bbox').ap(ALL)
    assert found == pytest.approx(by_pycocotools(truth, detections), abs=1e-12)
    assert ImageMatches(truth, [], 'bbox').ap(ALL) == 0
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


def test_the_interval_of_a_difference():
    truth, good = draw(3, images=80, noise=1.0)
    worse = [d for d in good if d['image_id'] % 2]
    better, control = (ImageMatches(truth, found, 'bbox') for found in (good, worse))
    mean, low, high = difference_interval([better] * 3, [control] * 3, ALL, resamples=200)
    assert mean == pytest.approx(better.ap(ALL) - control.ap(ALL))
    assert 0 < low < mean < high
    assert difference_interval([better] * 2, [better] * 2, ALL, resamples=50) == (0, 0, 0)


def test_faces_are_scored_from_prediction_files(data_root, tmp_path):
    truth = read_truth(data_root / 'real_study/face/wider_face_split/wider_val_bbx_gt.txt')
    assert len(truth.getAnnIds(iscrowd=False)) == 2294
    image = max(truth.dataset['images'], key=lambda image: len(truth.imgToAnns[image['id']]))
    faces = [a['bbox'] for a in truth.imgToAnns[image['id']]]
    file = (tmp_path / image['file_name']).with_suffix('.txt')
    file.parent.mkdir(parents=True)
    rows = '\n'.join(f'{x} {y} {w} {h} 0.9' for x, y, w, h in faces)
    file.write_text(f'{file.stem}\n{len(faces)}\n{rows}\n')
    found = read_detections(truth, tmp_path, 'bbox')
    assert [d['bbox'] for d in found] == faces
    assert 0 < ImageMatches(truth, found, 'bbox').ap(ALL) < 0.3


@pytest.mark.slow
def test_a_study_of_a_few_images(tool_server, data_root, tmp_path):
    words = ['--data', data_root, '--quick', '--task', 'person', '--layers', 'PolyNL-LN']
    command = ['-m', 'studies.real_images.run', *map(str, words), '--test', 'val']
    status, output = tool_server.run(command, cwd=str(tmp_path), env=dict(PYTHONPATH=str(ROOT)))
    assert status == 0, output
    report = json.loads((tmp_path / 'real_images.json').read_text())
    assert len(report['runs']) == 1
    scores = report['scores']['person/val']['ap']['PolyNL-LN']
    assert set(scores) == {'bbox AP', 'bbox AP50', 'segm AP', 'segm AP50'}
    assert '| PolyNL-LN |' in output
