"""Which anchor answers for which face, against loops over single pairs."""

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
        best = max(range(len(faces)), key=lambda i: ious[i]) if faces else None
        if best is not None and ious[best] >= pos:
            result.append(best + 1)
        elif best is not None and ious[best] >= neg:
            result.append(-1)
        else:
            near = any(
                iou(anchor, face) >= neg or intersection(anchor, face) / area(anchor) > iof
                for face in ignored
            )
            result.append(-1 if near else 0)
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
    faces = torch.as_tensor(faces, dtype=torch.float32).reshape(-1, 4)
    gt = InstanceData(bboxes=faces, labels=torch.zeros(len(faces), dtype=torch.long))
    gt_ignore = None
    if ignored is not None:
        gt_ignore = InstanceData(bboxes=torch.as_tensor(ignored).float().reshape(-1, 4))
    anchors = torch.as_tensor(anchors, dtype=torch.float32).reshape(-1, 4)
    return FaceAssigner(**kwargs).assign(InstanceData(priors=anchors), gt, gt_ignore)


def random_boxes(rng, count, smallest, largest):
    # Eighths of a pixel: IoUs are then far from rounding, and ties are real ties.
    corner = rng.integers(0, 400, (count, 2)) / 8
    size = rng.integers(smallest * 8, largest * 8, (count, 2)) / 8
    return np.concatenate([corner, corner + size], axis=1)


@pytest.mark.parametrize('seed', range(60))
def test_agrees_with_loops(seed):
    rng = np.random.default_rng(seed)
    anchors = random_boxes(rng, int(rng.integers(1, 80)), 6, 30)
    faces = random_boxes(rng, int(rng.integers(0, 8)), 1, 40)
    ignored = random_boxes(rng, int(rng.integers(0, 6)), 1, 40)
    found = assign(anchors, faces, ignored)
    expected = oracle(anchors.tolist(), faces.tolist(), ignored.tolist())
    assert found.gt_inds.tolist() == expected
    assert found.labels.tolist() == [0 if index > 0 else -1 for index in expected]
    assert found.num_gts == len(faces)


def test_same_on_cpu_for_crowds():
    rng = np.random.default_rng(5)
    anchors, faces = random_boxes(rng, 50, 6, 30), random_boxes(rng, 7, 6, 30)
    direct = assign(anchors, faces, faces[:2] + 3)
    moved = assign(anchors, faces, faces[:2] + 3, gpu_assign_thr=3)
    assert direct.gt_inds.equal(moved.gt_inds)


def test_small_face_keeps_its_best_anchor():
    anchors = [[0, 0, 16, 16], [8, 0, 24, 16], [100, 100, 116, 116]]
    assert assign(anchors, [[12, 6, 15, 9]]).gt_inds.tolist() == [1, 0, 0]


def test_shared_best_anchor_goes_to_the_better_face():
    anchors = [[0, 0, 16, 16], [40, 0, 56, 16]]
    # Face 1 overlaps more than face 2; their order must not matter.
    better, worse = [0, 0, 12, 12], [0, 0, 6, 6]
    assert assign(anchors, [better, worse]).gt_inds.tolist() == [1, 0]
    assert assign(anchors, [worse, better]).gt_inds.tolist() == [2, 0]
    assert assign(anchors, [better, better]).gt_inds.tolist() == [1, 0]


def test_face_off_every_anchor_claims_none():
    assert assign([[0, 0, 8, 8], [8, 8, 16, 16]], [[50, 50, 60, 60]]).gt_inds.tolist() == [0, 0]


def test_ignored_faces_are_neither():
    anchors = [
        [0, 0, 16, 16],  # the ignored face itself
        [2, 0, 18, 16],  # overlaps it
        [60, 60, 76, 76],  # inside a large ignored region
        [200, 200, 216, 216],  # holds a tiny ignored face, as its best anchor
        [300, 300, 316, 316],
    ]
    ignored = [[0, 0, 16, 16], [40, 40, 140, 140], [206, 206, 209, 209]]
    assert assign(anchors, [], ignored).gt_inds.tolist() == [-1, -1, -1, -1, 0]
    # A face beside an ignored one is still learned.
    assert assign(anchors, [[9, 0, 25, 16]], ignored).gt_inds.tolist() == [-1, 1, -1, -1, 0]


def test_empty_cases():
    assert assign([[0, 0, 8, 8]], []).gt_inds.tolist() == [0]
    assert assign([[0, 0, 8, 8]], [], []).gt_inds.tolist() == [0]
    assert assign([], [[0, 0, 8, 8]]).gt_inds.tolist() == []
