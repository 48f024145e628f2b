"""The vectorised official protocol against loops, and against a published detector's figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from wider_face_oracle import oracle

from polynl_mmdet.wider_face import WiderFaceGroundTruth, read_ground_truth, read_predictions
from polynl_mmdet.wider_face.average_precision import SETTINGS, score_wider_face

OFFICIAL = {'easy': 0.9448373912694071, 'medium': 0.9244706568389409, 'hard': 0.8153250447873874}


def draw_boxes(rng, count):
    """Boxes on a coarse grid: many touch, nest, repeat, or have no width."""
    return np.concatenate([rng.integers(0, 12, (count, 2)), rng.integers(0, 9, (count, 2))], 1)


def draw_case(rng):
    """Ground truth and predictions, small and full of corner cases."""
    names = [f'{n % 2}--Event/p{n}' for n in range(rng.integers(1, 5))]
    boxes = {name: draw_boxes(rng, rng.choice([0, 1, 2, 5])) for name in names}
    kind = rng.integers(3)
    counted = {
        setting: {name: rng.random(len(box)) < (0, 0.5, 1)[kind] for name, box in boxes.items()}
        for setting in SETTINGS
    }
    scores = [lambda n: rng.random(n), lambda n: rng.integers(0, 4, n) / 3, lambda n: np.ones(n)][
        rng.integers(3)
    ]
    predictions = {}
    for name in names:
        if rng.random() < 0.2:
            continue
        rows = draw_boxes(rng, rng.choice([0, 1, 3, 8])).astype(float)
        if len(boxes[name]) and len(rows):
            # Some detections are faces, moved by up to a pixel.
            chosen = boxes[name][rng.integers(len(boxes[name]), size=len(rows))]
            near = rng.random(len(rows)) < 0.6
            rows[near] = (chosen + rng.integers(0, 2, chosen.shape))[near]
        if len(rows) and rng.random() < 0.2:
            rows[0, 2] = -rng.integers(1, 9)  # Negative widths are in published files.
        predictions[name] = np.concatenate([rows, scores(len(rows))[:, None]], axis=1)
    return names, boxes, counted, predictions


def as_ground_truth(names, boxes, counted):
    """The arrays of a case."""
    return WiderFaceGroundTruth(
        names,
        np.cumsum([0] + [len(boxes[name]) for name in names]),
        np.concatenate([boxes[name] for name in names]).astype(float).reshape(-1, 4),
        {s: np.concatenate([counted[s][name] for name in names]) for s in SETTINGS},
    )


@pytest.mark.parametrize('seed', range(2))
def test_agrees_with_loops_on_random_cases(seed):
    rng = np.random.default_rng(seed)
    checked = 0
    for _ in range(400):
        names, boxes, counted, predictions = draw_case(rng)
        if not predictions:
            continue
        iou_thr = rng.choice([0.3, 0.5, 1.0])
        subset, file_order = map(bool, rng.integers(2, size=2))
        result = score_wider_face(
            predictions, as_ground_truth(names, boxes, counted), iou_thr, subset, file_order
        )
        lists = {name: rows.tolist() for name, rows in predictions.items()}
        truth = {name: box.tolist() for name, box in boxes.items()}
        for setting in SETTINGS:
            flags = {name: flag.tolist() for name, flag in counted[setting].items()}
            ap, curve = oracle(lists, truth, flags, iou_thr, subset, file_order)
            if math.isnan(ap):
                assert math.isnan(result.ap[setting])
                continue
            assert result.curves[setting].tolist() == [list(point) for point in curve]
            assert result.ap[setting] == pytest.approx(ap, abs=1e-14)
            checked += 1
    assert checked > 500


def test_large_images_are_matched_in_blocks_like_small_ones(monkeypatch):
    rng = np.random.default_rng(2)
    boxes = {'e/p': np.c_[rng.integers(0, 300, (200, 2)), rng.integers(5, 40, (200, 2))]}
    counted = {setting: {'e/p': rng.random(200) < 0.7} for setting in SETTINGS}
    rows = boxes['e/p'][rng.integers(200, size=900)] + rng.integers(0, 6, (900, 4))
    predictions = {'e/p': np.c_[rows, rng.random(900)]}
    truth = as_ground_truth(['e/p'], boxes, counted)
    whole = score_wider_face(predictions, truth).ap
    monkeypatch.setattr('polynl_mmdet.wider_face.average_precision._PAIRS_PER_BLOCK', 1000)
    assert score_wider_face(predictions, truth).ap == whole


def test_official_figures(data_root):
    truth = read_ground_truth(data_root / 'wider_eval' / 'ground_truth')
    predictions, unmatched = read_predictions(data_root / 'wider_eval' / 'predictions.zip')
    scores = score_wider_face(predictions, truth)
    assert scores.ap == OFFICIAL
    assert score_wider_face(predictions, truth, file_order=True).ap == OFFICIAL
    assert (scores.missing, unmatched, scores.unmatched) == (0, [], [])
    # Images without predictions have no detections.
    some = {name: rows for name, rows in predictions.items() if not name.startswith('0--')}
    empty = {name: rows if name in some else rows[:0] for name, rows in predictions.items()}
    scores = score_wider_face(some, truth)
    assert scores.ap == score_wider_face(empty, truth).ap
    assert scores.missing == len(predictions) - len(some) > 0
    assert score_wider_face(some, truth, subset=True).ap['easy'] > scores.ap['easy']


@pytest.mark.parametrize(
    ('name', 'iou_thr', 'words'),
    [
        ('e/p', 0, 'iou_thr'),
        ('e/p', 1.01, 'iou_thr'),
        ('e/p', math.nan, 'iou_thr'),
        ('e/q', 0.5, r"none of 1 .* got 'e/q', expected EVENT/NAME such as 'e/p'"),
    ],
)
def test_bad_input(name, iou_thr, words):
    flags = {setting: {'e/p': [True]} for setting in SETTINGS}
    truth = as_ground_truth(['e/p'], {'e/p': np.ones((1, 4))}, flags)
    with pytest.raises(ValueError, match=words):
        score_wider_face({name: np.ones((1, 5))}, truth, iou_thr)
