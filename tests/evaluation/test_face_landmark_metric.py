"""The landmark error against a face-by-face count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polynl_mmdet.evaluation import FaceLandmarkMetric


def sample(truth, found, marks=5):
    """truth: (box, points, visible); found: (box, points, score)."""
    boxes, points, visible = zip(*truth) if truth else ([], [], [])
    found_boxes, found_points, scores = zip(*found) if found else ([], [], [])
    return dict(
        img_path='a/b.jpg',
        gt_instances=dict(
            bboxes=torch.tensor(boxes).float().reshape(-1, 4),
            keypoints=torch.tensor(points).float().reshape(-1, marks, 2),
            keypoints_visible=torch.tensor(visible).float().reshape(-1, marks),
        ),
        pred_instances=dict(
            bboxes=torch.tensor(found_boxes).float().reshape(-1, 4),
            keypoints=torch.tensor(found_points).float().reshape(-1, marks, 2),
            scores=torch.tensor(scores).float(),
        ),
    )


def face(left, top, shift=(0, 0)):
    """A face of 20 x 20 whose eyes are 8 pixels apart, its landmarks shifted."""
    points = np.array([[6, 8], [14, 8], [10, 12], [7, 16], [13, 16]]) + (left, top)
    return [left, top, left + 20, top + 20], (points + shift).tolist()


def score(samples, **kwargs):
    metric = FaceLandmarkMetric(**kwargs)
    for one in samples:
        metric.process({}, [one])
    return metric.evaluate(len(samples))


SEEN = [1] * 5


def test_mean_over_faces_found():
    a, b, c, stray = (face(x, 10) for x in (0, 50, 100, 200))
    found_a = face(0, 10, (3, 4))  # every landmark 5 pixels off: 5 / 8
    truth = [(*a, SEEN), (*b, SEEN), (*c, SEEN)]
    found = [(*b, 0.9), (*stray, 0.8), (*found_a, 0.7)]
    result = score([sample(truth, found), sample([], [(*stray, 0.9)]), sample([(*a, SEEN)], [])])
    assert result['face_landmarks/nme'] == pytest.approx((5 / 8 + 0) / 2)
    assert result['face_landmarks/found'] == pytest.approx(2 / 4)
    assert result['face_landmarks/false_boxes'] == pytest.approx(2 / 3)


def test_only_annotated_points_count():
    box, points = face(0, 0)
    moved = [*points[:2], [1000, 1000], points[3], [points[4][0] + 4, points[4][1]]]
    result = score([sample([(box, points, [1, 1, 0, 1, 1])], [(box, moved, 0.9)])])
    assert result['face_landmarks/nme'] == pytest.approx(4 / 4 / 8)
    # Without an eye, or with both in one place, there is nothing to divide by.
    no_eye = sample([(box, points, [0, 1, 1, 1, 1])], [(box, points, 0.9)])
    profile = sample([(box, [points[0], *points[:1], *points[2:]], SEEN)], [(box, points, 0.9)])
    result = score([no_eye, profile])
    assert math.isnan(result['face_landmarks/nme'])
    assert math.isnan(result['face_landmarks/found'])


def test_false_boxes():
    a, b, stray = face(0, 0), face(50, 0), face(100, 0)
    second, unsure = (*face(2, 0), 0.8), (*stray, 0.4)
    one = sample([(*a, SEEN)], [(*a, 0.9), (*b, 0.9), (*stray, 0.9), second, unsure])
    assert score([one])['face_landmarks/false_boxes'] == 3
    one['ignored_instances'] = dict(bboxes=torch.tensor([b[0]]).float())
    assert score([one, sample([], [])])['face_landmarks/false_boxes'] == 2 / 2
    assert score([one], score_thr=0.3)['face_landmarks/false_boxes'] == 3


def test_the_best_detection_is_taken_once():
    box, points = face(0, 0)
    off = face(0, 0, (0, 8))[1]
    truth = [(box, points, SEEN)]
    low_first = sample(truth, [(box, off, 0.6), (box, points, 0.9)])
    assert score([low_first])['face_landmarks/nme'] == 0
    high_off = sample(truth, [(box, off, 0.9), (box, points, 0.6)])
    assert score([high_off])['face_landmarks/nme'] == pytest.approx(1)
    assert math.isnan(score([low_first], score_thr=0.95)['face_landmarks/nme'])
    shifted = sample(truth, [([10, 0, 30, 20], points, 0.9)])  # IoU 1/3
    assert score([shifted])['face_landmarks/found'] == 0
    assert score([shifted], iou_thr=0.3)['face_landmarks/found'] == 1


def test_other_landmarks_and_their_unit():
    """Four corners of a plate, in units of its left side."""
    box, corners = [0, 0, 40, 20], [[0, 0], [40, 0], [40, 20], [0, 20]]
    moved = [[x + 3, y + 4] for x, y in corners]
    one = sample([(box, corners, [1] * 4)], [(box, moved, 0.9)], marks=4)
    assert score([one], norm_points=(0, 3))['face_landmarks/nme'] == pytest.approx(5 / 20)
    assert score([one])['face_landmarks/nme'] == pytest.approx(5 / 40)


def test_a_detector_without_landmarks_is_an_error():
    one = sample([(*face(0, 0), SEEN)], [(*face(0, 0), 0.9)])
    del one['pred_instances']['keypoints']
    with pytest.raises(ValueError, match=r'a/b.jpg: pred_instances has no keypoints'):
        FaceLandmarkMetric().process({}, [one])
