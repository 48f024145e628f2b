"""WIDERFaceMetric against the pure function, in one process and in two."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from metric_worker import as_samples, evaluate, run

from demo.wider_files import write_ground_truth
from polynl_mmdet.evaluation import WIDERFaceMetric
from polynl_mmdet.wider_face import (
    WiderFaceGroundTruth,
    read_ground_truth,
    read_predictions,
    score_wider_face,
)
from polynl_mmdet.wider_face.ground_truth import SETTINGS


@pytest.fixture
def made(tmp_path):
    """Ground truth of 31 images in a folder, and predictions for them."""
    rng = np.random.default_rng(0)
    names = [f'{n // 10}--Event/p{n}' for n in range(31)]
    counts = rng.integers(0, 6, len(names))
    boxes = rng.integers(4, 40, (counts.sum(), 4)).astype(float)
    counted = {setting: rng.random(len(boxes)) < 0.7 for setting in SETTINGS}
    starts = np.cumsum([0, *counts])
    truth = WiderFaceGroundTruth(names, starts, boxes, counted)
    write_ground_truth(tmp_path / 'gt', truth)
    predictions = {}
    for number, name in enumerate(names):
        rows = boxes[starts[number] : starts[number + 1]]
        rows = np.r_[rows + rng.integers(0, 3, rows.shape), rng.integers(4, 40, (3, 4))]
        predictions[name] = np.c_[rows, rng.random(len(rows))]
    return tmp_path / 'gt', predictions


def expected(gt_dir, predictions, **options):
    """What the pure function gives, by the metric's keys."""
    ap = score_wider_face(predictions, read_ground_truth(gt_dir), **options).ap
    return {f'wider_face/{setting}': value for setting, value in ap.items()}


def test_one_process(made):
    """Images shown twice, as by a sampler that pads, count once; a subset counts those tested."""
    gt_dir, predictions = made
    metric, samples = WIDERFaceMetric(gt_dir, iou_thr=0.8), as_samples(predictions)
    metric.process({}, samples)
    metric.process({}, samples[:9])
    assert metric.evaluate(len(samples) + 9) == expected(gt_dir, predictions, iou_thr=0.8)
    some = {name: rows for name, rows in predictions.items() if name.startswith('1--')}
    result = evaluate(some, 0, 1, dict(gt_dir=gt_dir, subset=True))
    assert result == expected(gt_dir, some, subset=True)
    assert result['wider_face/hard'] > expected(gt_dir, some)['wider_face/hard']


def test_two_processes_and_an_uneven_number_of_images(made, tmp_path):
    gt_dir, predictions = made
    assert len(predictions) % 2 == 1
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    arguments = (2, tmp_path / 'store', predictions, dict(gt_dir=gt_dir), queue)
    processes = [context.Process(target=run, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert results == dict.fromkeys(range(2), expected(gt_dir, predictions))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_written_predictions_give_the_same_figures(made, tmp_path, dtype):
    gt_dir, predictions = made
    moved = {name: rows + np.array([0.1, 0.2, 0.3, 0.4, 0]) for name, rows in predictions.items()}
    metric = WIDERFaceMetric(gt_dir, outfile_prefix=str(tmp_path / 'out'))
    metric.process({}, as_samples(moved, dtype))
    result = metric.evaluate(len(moved))
    written, _ = read_predictions(tmp_path / 'out')
    assert written.keys() == predictions.keys()
    assert expected(gt_dir, written) == result


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['cam1/day1/1.jpg', 'cam2/day1/1.jpg', 'cam2/day2/1.jpg'],
         ['cam1/day1/1', 'cam2/day1/1', 'cam2/day2/1']),
        (['a/1.jpg', 'a/1.png', 'b/2.jpg'], ['a/1.jpg', 'a/1.png', 'b/2.jpg']),
        (['x/a/1.jpg', 'y/a/1.jpg', 'y/a/1.png'], ['x/a/1.jpg', 'y/a/1.jpg', 'y/a/1.png']),
        (['deep/0--A/1.jpg', 'deep/1--B/2.jpg'], ['0--A/1', '1--B/2']),
        (['1.jpg', 'a/1.jpg', 'b/a/1.jpg'], ['1', 'a/1', 'b/a/1']),
    ],
)  # fmt: skip
def test_one_file_for_each_image(tmp_path, paths, names):
    """Also where a sampler repeats images."""
    metric = WIDERFaceMetric(format_only=True, outfile_prefix=str(tmp_path / 'out'))
    for index in [*range(len(paths)), 0]:
        rows = dict(bboxes=torch.tensor([[0.0, 0, index + 1, 9]]), scores=torch.ones(1))
        metric.process({}, [dict(img_path=f'{tmp_path}/data/{paths[index]}', pred_instances=rows)])
    metric.evaluate(len(paths) + 1)
    written = {
        path.relative_to(tmp_path / 'out').as_posix()[:-4]: path.read_text().splitlines()[2]
        for path in (tmp_path / 'out').rglob('*.txt')
    }
    assert written == {name: f'0.0 0.0 {index + 1}.0 9.0 1.0' for index, name in enumerate(names)}


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(), 'gt_dir'),
        (dict(format_only=True), 'outfile_prefix'),
        (dict(gt_dir='absent', iou_thr=0), 'iou_thr'),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        WIDERFaceMetric(**options)


@pytest.mark.parametrize('row', [[1, 2, np.nan, 4, 1], [1, 2, -3, 4, 1]], ids=str)
def test_bad_detections_are_named_by_image(made, row):
    metric = WIDERFaceMetric(made[0])
    with pytest.raises(ValueError, match=r'0--Event/p1\.jpg: got a detection'):
        metric.process({}, as_samples({'0--Event/p1': np.array([row], dtype=float)}))
