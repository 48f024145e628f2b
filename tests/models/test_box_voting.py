"""Box voting and the views of test-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from polynl_mmdet.models import FaceTTAModel
from polynl_mmdet.models.test_time_augs import box_voting


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    size = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return width * height / (sum(size) - width * height)


def oracle(boxes, scores, labels, points, iou_thr):
    """Each detection in turn, each voter in turn."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    result = []
    while left:
        top = left[0]
        voters = [
            i for i in left if labels[i] == labels[top] and iou(boxes[top], boxes[i]) >= iou_thr
        ]
        total = sum(scores[i] for i in voters)
        box = sum(scores[i] * np.array(boxes[i]) for i in voters) / total
        marks = sum(scores[i] * np.array(points[i]) for i in voters) / total
        result.append((box, scores[top], labels[top], marks))
        left = [i for i in left if i not in voters]
    return result


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


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('num_labels', [1, 2])
@pytest.mark.parametrize('iou_thr', [0.4, 0.7])
def test_agrees_with_loops(seed, num_labels, iou_thr):
    found = random_instances(seed, 1 + 3 * seed, num_labels)
    expected = oracle(
        found.bboxes.tolist(),
        found.scores.tolist(),
        found.labels.tolist(),
        found.keypoints.tolist(),
        iou_thr,
    )
    voted = box_voting(found, iou_thr)
    assert len(voted) == len(expected)
    for index, (box, score, label, marks) in enumerate(expected):
        np.testing.assert_allclose(voted.bboxes[index].numpy(), box, atol=1e-4)
        np.testing.assert_allclose(voted.keypoints[index].numpy(), marks, atol=1e-4)
        assert voted.scores[index] == pytest.approx(score)
        assert voted.labels[index] == label


def test_empty_and_zero_scores():
    assert len(box_voting(random_instances(0, 0))) == 0
    twice = random_instances(0, 1)
    twice = InstanceData.cat([twice, twice])
    twice.scores = torch.zeros(2)
    voted = box_voting(twice)
    assert len(voted) == 1
    assert torch.allclose(voted.bboxes[0], twice.bboxes[0])


class Detector(nn.Module):
    """Stands for a detector: merging does not run it."""

    def test_step(self, data):
        return data


def view(instances, shape, flip, direction=None):
    sample = DetDataSample(metainfo=dict(ori_shape=shape, flip=flip, flip_direction=direction))
    sample.pred_instances = instances
    return sample


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_flipped_views_come_back(direction):
    """A detection and what its mirror image would give vote for the same place."""
    height, width = 90, 130
    found = random_instances(3, 1)
    boxes, points = found.bboxes.clone(), found.keypoints.clone()
    if direction != 'vertical':
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        points[..., 0] = width - points[..., 0]
    if direction != 'horizontal':
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        points[..., 1] = height - points[..., 1]
    if direction != 'diagonal':
        points = points[:, [1, 0, 2, 4, 3]]
    mirrored = InstanceData(
        bboxes=boxes, scores=found.scores / 2, labels=found.labels, keypoints=points
    )
    model = FaceTTAModel(module=Detector(), tta_cfg=dict(iou_thr=0.4))
    shape = (height, width)
    merged = model.merge_preds(
        [[view(found, shape, False), view(mirrored, shape, True, direction)]]
    )
    result = merged[0].pred_instances
    assert len(result) == 1
    assert torch.allclose(result.bboxes, found.bboxes, atol=1e-4)
    assert torch.allclose(result.keypoints, found.keypoints, atol=1e-4)
    assert result.scores == found.scores


def test_views_without_detections_and_the_limit():
    model = FaceTTAModel(module=Detector(), tta_cfg=dict(iou_thr=0.99, max_per_img=4))
    views = [
        view(random_instances(0, 0), (100, 100), False),
        view(random_instances(1, 9), (100, 100), False),
    ]
    result = model.merge_preds([views])[0].pred_instances
    assert len(result) == 4
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)
    empty = [view(random_instances(0, 0), (9, 9), flip, 'horizontal') for flip in (False, True)]
    assert len(model.merge_preds([empty])[0].pred_instances) == 0
