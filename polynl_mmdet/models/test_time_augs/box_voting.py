"""Box voting: merge overlapping detections of several views.

Gidaris and Komodakis, Object Detection via a Multi-Region and Semantic Segmentation-Aware CNN
Model (ICCV 2015, Sec. 5), https://arxiv.org/abs/1505.01749; RetinaFace uses it at IoU 0.4
(Sec. 4.2).
"""

from __future__ import annotations

import torch
from mmengine.structures import InstanceData
from torch import Tensor


def box_voting(instances: InstanceData, iou_thr: float = 0.4, offset: float = 1.0) -> InstanceData:
    """Merge overlapping detections of one class into their mean, weighted by score.

    As in NMS, the detection with the highest score and all others of its class with IoU >=
    ``iou_thr`` to it form a group, then the rest. A group becomes one detection: box and landmarks
    are means weighted by score, the score is the highest. The best comes first.

    Args:
        instances (InstanceData): ``bboxes`` (n, 4), ``scores`` (n,), ``labels`` (n,) and
            ``keypoints`` (n, K, 2).
        iou_thr (float): Min IoU to be merged. Defaults to 0.4.
        offset (float): Added to widths and heights in the IoU: 1 counts pixels, as WIDER FACE
            does. Defaults to 1.0.
    """
    rest = instances[instances.scores.sort(descending=True, stable=True).indices]
    merged = []
    while len(rest):
        together = _iou(rest.bboxes[0], rest.bboxes, offset) >= iou_thr
        together &= rest.labels == rest.labels[0]
        together[0] = True  # an empty box's IoU with itself is NaN
        voters, rest = rest[together], rest[~together]
        # Equal weights if all scores are zero.
        weights = voters.scores if voters.scores[0] > 0 else torch.ones_like(voters.scores)
        weights = (weights / weights.sum())[:, None]
        best = voters[:1]
        best.bboxes = (weights * voters.bboxes).sum(dim=0, keepdim=True)
        best.keypoints = (weights[..., None] * voters.keypoints).sum(dim=0, keepdim=True)
        merged.append(best)
    return InstanceData.cat(merged) if merged else instances


def _iou(box: Tensor, boxes: Tensor, offset: float) -> Tensor:
    """Compute the IoU of a box (4,) with each of (n, 4)."""
    corner = torch.maximum(box[:2], boxes[:, :2])
    size = (torch.minimum(box[2:], boxes[:, 2:]) - corner + offset).clamp(min=0)
    overlap = size.prod(dim=1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(dim=1)
    return overlap / (area + areas - overlap)
