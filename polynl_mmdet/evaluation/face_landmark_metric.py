"""Error of detected landmarks, and detections without a face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class FaceLandmarkMetric(BaseMetric):
    """Normalised mean error of landmarks, over the faces that were detected.

    Gives ``face_landmarks/nme`` (mean distance over the eye distance; NaN if no face was detected),
    ``face_landmarks/found`` (detected share of the annotated faces) and
    ``face_landmarks/false_boxes`` (detections per image that match no face, second boxes on one
    face included, those on ignored faces excluded). Faces count if they are not ignored and their
    eyes are annotated in two different places. Detections are matched greedily by score, each to
    the free face with the highest IoU.

    Args:
        iou_thr (float): Min IoU of a detection with its face. Defaults to 0.5.
        score_thr (float): Detections below it do not count. Defaults to 0.5.
        norm_points (tuple[int, int]): Landmarks whose distance is the unit. Defaults to the eyes.

    Raises:
        ValueError: If a data sample has no landmarks, predicted or annotated.
    """

    default_prefix = 'face_landmarks'

    def __init__(
        self,
        iou_thr: float = 0.5,
        score_thr: float = 0.5,
        norm_points: tuple[int, int] = (0, 1),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.iou_thr = iou_thr
        self.score_thr = score_thr
        self.norm_points = norm_points

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep, per image, the number of faces and false boxes, and the errors."""
        del data_batch
        for sample in data_samples:
            truth, found = sample['gt_instances'], sample['pred_instances']
            for name, instances in (('gt_instances', truth), ('pred_instances', found)):
                if 'keypoints' not in instances:
                    expected = 'expected a dataset and a detector with landmarks'
                    path = sample.get('img_path')
                    raise ValueError(f'{path}: {name} has no keypoints, {expected}')
            points = _array(truth['keypoints'])
            visible = _array(truth['keypoints_visible']) > 0
            first, second = self.norm_points
            unit = np.linalg.norm(points[:, first] - points[:, second], axis=1)
            counts = visible[:, first] & visible[:, second] & (unit > 0)

            scores = _array(found['scores'])
            order = np.argsort(-scores, kind='stable')
            order = order[scores[order] >= self.score_thr]
            # Faces that do not count are matched too: their detections match no other face.
            boxes = _array(found['bboxes'])[order]
            matched = _match(_iou(boxes, _array(truth['bboxes'])), self.iou_thr)
            false = matched < 0
            if 'ignored_instances' in sample:
                on_ignored = _iou(boxes, _array(sample['ignored_instances']['bboxes']))
                false &= (on_ignored < self.iou_thr).all(axis=1)
            chosen = (matched >= 0) & counts[matched] if len(counts) else matched >= 0
            faces = matched[chosen]
            shifts = _array(found['keypoints'])[order[chosen]] - points[faces]
            distances = np.where(visible[faces], np.linalg.norm(shifts, axis=2), 0)
            means = distances.sum(axis=1) / visible[faces].sum(axis=1)
            errors = means / unit[faces]
            self.results.append((int(counts.sum()), int(false.sum()), errors))

    def compute_metrics(self, results: list[tuple[int, int, np.ndarray]]) -> dict[str, float]:
        """Average over the faces and the images of all processes."""
        counts, false, errors = zip(*results)
        total, errors = sum(counts), np.concatenate(errors)
        return {
            'nme': float(errors.mean()) if len(errors) else float('nan'),
            'found': len(errors) / total if total else float('nan'),
            'false_boxes': sum(false) / len(results),
        }


def _iou(detected: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return bbox_overlaps(torch.from_numpy(detected), torch.from_numpy(faces)).numpy()


def _match(iou: np.ndarray, iou_thr: float) -> np.ndarray:
    """Match detections, sorted by score, to faces: int64 (n,), the index of the face or -1."""
    found = np.full(len(iou), -1, dtype=np.int64)
    for index, row in enumerate(iou if iou.shape[1] else ()):
        best = row.argmax()
        if row[best] >= iou_thr:
            found[index] = best
            iou[:, best] = -1
    return found


def _array(values: torch.Tensor | np.ndarray) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()
