"""Box voting and the views of test-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from polynl_mmdet.models import FaceTTAModel
from polynl_mmdet.models.test_time_augs.box_voting import box_voting


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    size = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return width * height / (sum(size) - width * height)


def oracle(found, iou_thr):
    """Each detection in turn, each voter in turn."""
    boxes, scores, labels, points = (
        found[key].tolist() for key in ('bboxes', 'scores', 'labels', 'keypoints')
    )
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    while left:
        top = left[0]
        voters = [
            i for i in left if labels[i] == labels[top] and iou(boxes[top], boxes[i]) >= iou_thr
        ]
        total = sum(scores[i] for i in voters)
        box = sum(scores[i] * np.array(boxes[i]) for i in voters) / total
        marks = sum(scores[i] * np.array(points[i]) for i in voters) / total
        yield box, scores[top], labels[top], marks
        left = [i for i in left if i not in voters]


def random_instances(seed, count, num_labels=1):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    size = 10 + torch.rand(count, 2, generator=generator) * 40
    return InstanceData(
        bboxes=torch.cat([corner, corner + size], dim=1),
        scores=torch.rand(count, generator=generator) * 0.98 + 0.02,
        labels=torch.randint(0, num_labels, (count,), generator=generator),
        keypoints=torch.rand(count, 5, 2, generator=generator) * 100,
    )


@pytest.mark.parametrize('num_labels', [1, 2])
@pytest.mark.parametrize('iou_thr', [0.4, 0.7])
def test_agrees_with_loops(num_labels, iou_thr):
    for seed in range(15):
        found = random_instances(seed, 4 * seed, num_labels)
        expected, voted = list(oracle(found, iou_thr)), box_voting(found, iou_thr)
        assert len(voted) == len(expected)
        for index, (box, score, label, marks) in enumerate(expected):
            np.testing.assert_allclose(voted.bboxes[index].numpy(), box, atol=1e-4)
            np.testing.assert_allclose(voted.keypoints[index].numpy(), marks, atol=1e-4)
            assert voted.scores[index] == pytest.approx(score)
            assert voted.labels[index] == label


def test_scores_of_zero():
    twice = InstanceData.cat([random_instances(0, 1)] * 2)
    twice.scores = torch.zeros(2)
    voted = box_voting(twice)
    assert len(voted) == 1
    torch.testing.assert_close(voted.bboxes[0], twice.bboxes[0])


def merge(*views, **tta_cfg):
    """Merge (instances, flip direction or None) of an image of 90 x 130."""
    samples = []
    for instances, direction in views:
        meta = dict(ori_shape=(90, 130), flip=direction is not None, flip_direction=direction)
        samples.append(DetDataSample(metainfo=meta))
        samples[-1].pred_instances = instances
    detector = nn.Module()  # Merging does not run it.
    detector.test_step = None
    return FaceTTAModel(module=detector, tta_cfg=tta_cfg).merge_preds([samples])[0].pred_instances


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_flipped_views_come_back(direction):
    """A detection and what its mirror image would give vote for the same place."""
    found = random_instances(3, 1)
    boxes, points = found.bboxes.clone(), found.keypoints.clone()
    if direction != 'vertical':
        boxes[:, [0, 2]] = 130 - boxes[:, [2, 0]]
        points[..., 0] = 130 - points[..., 0]
    if direction != 'horizontal':
        boxes[:, [1, 3]] = 90 - boxes[:, [3, 1]]
        points[..., 1] = 90 - points[..., 1]
    if direction != 'diagonal':
        points = points[:, [1, 0, 2, 4, 3]]
    mirrored = InstanceData(
        bboxes=boxes, scores=found.scores / 2, labels=found.labels, keypoints=points
    )
    result = merge((found, None), (mirrored, direction), iou_thr=0.4)
    assert len(result) == 1
    torch.testing.assert_close(result.bboxes, found.bboxes)
    torch.testing.assert_close(result.keypoints, found.keypoints)
    assert result.scores == found.scores


def test_views_without_detections_and_the_limit():
    none, nine = random_instances(0, 0), random_instances(1, 9)
    result = merge((none, None), (nine, None), iou_thr=0.99, max_per_img=4)
    assert result.scores.tolist() == sorted(nine.scores.tolist(), reverse=True)[:4]
    assert len(merge((none, None), (none, 'horizontal'))) == 0
