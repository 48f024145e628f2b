"""The distance of detected landmarks from annotated ones, and boxes without a face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from polynl_mmdet.errors import InputError

LEFT_EYE, RIGHT_EYE = 0, 1


@METRICS.register_module()
class FaceLandmarkMetric(BaseMetric):
    """Normalised mean error of landmarks, over the faces that were found.

    Gives ``face_landmarks/nme`` (mean distance over the eye distance; not a number where no face
    was found), ``face_landmarks/found`` (share of the annotated faces that were found) and
    ``face_landmarks/false_boxes`` (detections an image that found no face, second boxes of a face
    among them; those on ignored faces are left out). Faces count that are not ignored and whose
    eyes are annotated in two different places. Detections choose best first: each takes the free
    face that it overlaps most.

    Args:
        iou_thr (float): Least IoU of a detection with its face. Defaults to 0.5.
        score_thr (float): Detections under it do not count. Defaults to 0.5.
        **kwargs: As in mmengine's ``BaseMetric``.

    Raises:
        InputError: A data sample without landmarks, predicted or annotated.
    """

    default_prefix = 'face_landmarks'

    def __init__(self, iou_thr: float = 0.5, score_thr: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.iou_thr = iou_thr
        self.score_thr = score_thr

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep of each image: faces that count, false boxes, errors of those found."""
        del data_batch
        for sample in data_samples:
            truth, found = sample['gt_instances'], sample['pred_instances']
            for name, instances in (('gt_instances', truth), ('pred_instances', found)):
                if 'keypoints' not in instances:
                    raise InputError(
                        f'{sample.get("img_path")}: {name}',
                        'no keypoints',
                        'accepted: data and a detector with landmarks',
                    )
            points = _array(truth['keypoints'])
            visible = _array(truth['keypoints_visible']) > 0
            eye_distance = np.linalg.norm(points[:, LEFT_EYE] - points[:, RIGHT_EYE], axis=1)
            counts = visible[:, LEFT_EYE] & visible[:, RIGHT_EYE] & (eye_distance > 0)

            scores = _array(found['scores'])
            order = np.argsort(-scores, kind='stable')
            order = order[scores[order] >= self.score_thr]
            # Faces that do not count are matched too: what finds them finds no other face.
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
            errors = means / eye_distance[faces]
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
    """IoU of boxes (n, 4) with boxes (k, 4): (n, k)."""
    return bbox_overlaps(torch.from_numpy(detected), torch.from_numpy(faces)).numpy()


def _match(iou: np.ndarray, iou_thr: float) -> np.ndarray:
    """Find the face of each detection, best score first: int64 (n,), its index or -1."""
    found = np.full(len(iou), -1, dtype=np.int64)
    for index, row in enumerate(iou if iou.shape[1] else ()):
        best = row.argmax()
        if row[best] >= iou_thr:
            found[index] = best
            iou[:, best] = -1
    return found


def _array(values: torch.Tensor | np.ndarray) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()
