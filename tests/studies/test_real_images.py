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
from studies.real_images.scores import ImageMatches, difference_interval

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
    """AP at each threshold, for each size."""
    with redirect_stdout(StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluator.params.maxDets = [100]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval['precision'][:, :, 0, :, 0]
    values = np.where(precision < 0, np.nan, precision).mean(axis=1).T
    return dict(zip(evaluator.params.areaRngLbl, values))


@pytest.mark.parametrize('seed', range(5))
def test_average_precision_is_that_of_pycocotools(seed):
    truth, detections = draw(seed, digits=1)  # Many are alike in score.
    matches = ImageMatches(truth, detections, 'bbox')
    for area, expected in by_pycocotools(truth, detections).items():
        np.testing.assert_allclose(matches.ap(area=area), expected, atol=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_an_image_that_counts_several_times_is_several_images(seed):
    truth, detections = draw(seed)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(1, 13, 12)
    annotations, copies = [], []
    for number, image in enumerate(drawn.tolist(), 1):
        for annotation in truth.imgToAnns[image]:
            annotations.append(dict(annotation, id=len(annotations) + 1, image_id=number))
        copies += [dict(d, image_id=number) for d in detections if d['image_id'] == image]
    expected = by_pycocotools(index(range(1, 13), annotations), copies)['all']
    weights = np.bincount(drawn - 1, minlength=12).astype(float)
    found = ImageMatches(truth, detections, 'bbox').ap(weights)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_nothing_detected_is_an_average_precision_of_0():
    truth, _ = draw(0)
    assert (ImageMatches(truth, [], 'bbox').ap() == 0).all()


def test_the_interval_of_a_difference():
    truth, good = draw(3, images=80, noise=1.0)
    worse = [d for d in good if d['image_id'] % 2]
    runs = [ImageMatches(truth, found, 'bbox') for found in (good, worse)]
    mean, low, high = difference_interval([runs[0]] * 3, [runs[1]] * 3, ALL, resamples=200)
    assert mean == pytest.approx((runs[0].ap() - runs[1].ap()).mean())
    assert 0 < low < mean < high
    assert difference_interval([runs[0]] * 2, [runs[0]] * 2, ALL, resamples=50) == (0, 0, 0)


def test_no_interval_where_few_images_have_an_object_of_the_size():
    truth, found = draw(3, images=2, noise=1.0)
    runs = [ImageMatches(truth, found, 'bbox')] * 2
    assert np.isnan(difference_interval(runs, runs, ALL, resamples=50, area='large')).all()


@pytest.fixture
def few_images(data_root, tmp_path):
    """The layout of the study's data with a handful of its images."""
    for name in ('mobilenet025_imagenet', 'wider_eval'):
        (tmp_path / name).symlink_to(data_root / name)
    source, out = data_root / 'real_study' / 'person', tmp_path / 'real_study' / 'person'
    (out / 'annotations').mkdir(parents=True)
    for part in ('train', 'val'):
        (out / part).symlink_to(source / part)
        content = json.loads((source / 'annotations' / f'{part}.json').read_text())
        images = content['images'][:8]
        kept = {image['id'] for image in images}
        annotations = [a for a in content['annotations'] if a['image_id'] in kept]
        content.update(images=images, annotations=annotations)
        (out / 'annotations' / f'{part}.json').write_text(json.dumps(content))
    source, out = data_root / 'real_study' / 'face', tmp_path / 'real_study' / 'face'
    (out / 'wider_face_split').mkdir(parents=True)
    for folder in ('WIDER_train', 'WIDER_val', 'WIDER_real_val'):
        (out / folder).symlink_to(source / folder)
    for part in ('masks_train', 'masks_val', 'wider_val'):
        name = f'wider_face_split/{part}_bbx_gt.txt'
        lines = (source / name).read_text().splitlines(keepends=True)
        starts = [number for number, line in enumerate(lines) if '.jpg' in line]
        (out / name).write_text(''.join(lines[: starts[8]]))
    return tmp_path


@pytest.mark.parametrize('place', ['annotations/some.json', 'some.json', 'images/some.json'])
def test_images_are_found_beside_an_annotation_file(tmp_path, place):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.jpg').touch()
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({'images': [{'file_name': 'a.jpg'}]}))
    part = find_part('person', str(file), tmp_path)
    assert part.images == tmp_path / 'images'
    assert part.name.startswith('some-')
    file.write_text(json.dumps({'images': [{'file_name': 'b.jpg'}]}))
    with pytest.raises(InputError, match=r"some\.json: 'b\.jpg' is in no folder beside it"):
        find_part('person', str(file), tmp_path)


def run(data, folder, *args):
    done = subprocess.run(
        [sys.executable, '-m', 'studies.real_images.run', '--data', str(data)]
        + ['--seeds', '1', '--epochs', '1', '--workers', '1', '--resamples', '20', *args],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1800,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_study_of_a_few_images_and_another_part(few_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('study')
    arguments = ('--layers', 'none', '--test', 'val', 'masks_val', 'wider_val')
    status, text = run(few_images, folder, *arguments)
    assert status == 0, text
    report = json.loads((folder / 'real_images.json').read_text())
    assert set(report['runs']) == {'person/none/0', 'face/none/0'}
    assert all(run['step_s'] > 0 and np.isfinite(run['loss']) for run in report['runs'].values())
    tables = {name.split('-')[0]: scores for name, scores in report['scores'].items()}
    assert set(tables) == {'person/val', 'face/masks_val', 'face/wider_val'}
    for scores in tables.values():
        assert set(scores['ap']) == {'none'}
        for metrics in scores['ap'].values():
            assert all(0 <= value <= 1 for values in metrics.values() for value in values)
        assert scores['difference'] == {}, 'one seed has no spread'
    assert {'segm AP50', 'bbox large'} <= set(tables['person/val']['ap']['none'])
    assert 'WIDER hard' in tables['face/wider_val']['ap']['none']
    assert 'WIDER hard' not in tables['face/masks_val']['ap']['none']

    # Another annotation file, whose images are found beside it, and a layer more.
    other = few_images / 'real_study/person/annotations/train.json'
    arguments = ('--layers', 'none', 'PolyNL-LN', '--task', 'person', '--test', str(other))
    status, text = run(few_images, folder, *arguments)
    assert status == 0, text
    again = json.loads((folder / 'real_images.json').read_text())
    added = again['runs'].pop('person/PolyNL-LN/0')
    assert np.isfinite(added['loss'])
    assert again['runs'] == report['runs']
    ((name, scores),) = again['scores'].items()
    assert name.startswith('person/train-')
    assert set(scores['ap']) == {'none', 'PolyNL-LN'}
    assert scores['difference'] == {}, 'one seed has no spread'

    status, text = run(few_images, folder, '--test', 'no_such_part')
    assert status == 2
    assert 'no_such_part' in text.splitlines()[-1]
    assert 'Traceback' not in text
