"""Assign anchors to faces, against loops over single pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from polynl_mmdet.models import FaceAssigner


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def intersection(a, b):
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a, b):
    both = intersection(a, b)
    return both / (area(a) + area(b) - both)


def oracle(anchors, faces, ignored, pos=0.5, neg=0.3, iof=0.5):
    """One anchor and one face at a time: 0 negative, -1 neither, i + 1 positive for face i."""
    result = []
    for anchor in anchors:
        ious = [iou(anchor, face) for face in faces]
        best = max(ious, default=0)
        near = any(
            iou(anchor, face) >= neg or intersection(anchor, face) / area(anchor) > iof
            for face in ignored
        )
        if best >= pos:
            result.append(ious.index(best) + 1)
        else:
            result.append(-1 if best >= neg or near else 0)
    for face in ignored:
        ious = [iou(anchor, face) for anchor in anchors]
        best = ious.index(max(ious))
        if max(ious) > 0 and result[best] == 0:
            result[best] = -1
    claims = {}
    for index, face in enumerate(faces):
        ious = [iou(anchor, face) for anchor in anchors]
        best = ious.index(max(ious))
        if max(ious) > 0 and ious[best] > claims.get(best, (-1, 0))[1]:
            claims[best] = (index, ious[best])
    for anchor, (index, _) in claims.items():
        result[anchor] = index + 1
    return result


def assign(anchors, faces, ignored=None, **kwargs):
    anchors, faces = (
        torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4) for boxes in (anchors, faces)
    )
    gt = InstanceData(bboxes=faces, labels=torch.zeros(len(faces), dtype=torch.long))
    gt_ignore = None
    if ignored is not None:
        gt_ignore = InstanceData(bboxes=torch.as_tensor(ignored).float().reshape(-1, 4))
    return FaceAssigner(**kwargs).assign(InstanceData(priors=anchors), gt, gt_ignore)


def random_boxes(rng, count, smallest, largest):
    # Eighths of a pixel: IoUs are then far from rounding, and ties are real ties.
    corner = rng.integers(0, 400, (count, 2)) / 8
    size = rng.integers(smallest * 8, largest * 8, (count, 2)) / 8
    return np.concatenate([corner, corner + size], axis=1)


def test_agrees_with_loops():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        anchors = random_boxes(rng, int(rng.integers(1, 80)), 6, 30)
        faces = random_boxes(rng, int(rng.integers(0, 8)), 1, 40)
        ignored = random_boxes(rng, int(rng.integers(0, 6)), 1, 40)
        found = assign(anchors, faces, ignored)
        expected = oracle(anchors.tolist(), faces.tolist(), ignored.tolist())
        assert found.gt_inds.tolist() == expected
        assert found.labels.tolist() == [0 if index > 0 else -1 for index in expected]
        assert found.num_gts == len(faces)


ANCHORS = [
    [0, 0, 16, 16],
    [2, 0, 18, 16],
    [60, 60, 76, 76],
    [200, 200, 216, 216],
    [300, 300, 316, 316],
]
# The first anchor itself, a large region around the third, and a tiny face inside the fourth.
IGNORED = [[0, 0, 16, 16], [40, 40, 140, 140], [206, 206, 209, 209]]
BETTER, WORSE = [0, 0, 12, 12], [0, 0, 6, 6]


@pytest.mark.parametrize(
    ('anchors', 'faces', 'ignored', 'expected'),
    [
        (ANCHORS, [[206, 206, 209, 209]], None, [0, 0, 0, 1, 0]),  # A small face has its anchor.
        (ANCHORS, [[500, 50, 510, 60]], None, [0] * 5),  # One off every anchor has none.
        # A shared best anchor goes to the better face, in any order.
        (ANCHORS[::4], [BETTER, WORSE], None, [1, 0]),
        (ANCHORS[::4], [WORSE, BETTER], None, [2, 0]),
        (ANCHORS[::4], [BETTER, BETTER], None, [1, 0]),
        (ANCHORS, [], IGNORED, [-1, -1, -1, -1, 0]),
        (ANCHORS, [[9, 0, 25, 16]], IGNORED, [-1, 1, -1, -1, 0]),  # Beside an ignored face.
        (ANCHORS[:1], [], [], [0]),
        ([], [BETTER], None, []),
    ],
)
def test_rules(anchors, faces, ignored, expected):
    assert assign(anchors, faces, ignored).gt_inds.tolist() == expected
