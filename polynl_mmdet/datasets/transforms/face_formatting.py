"""Landmarks from a dataset's instances into the pipeline, and from the pipeline into the sample."""

from __future__ import annotations

import numpy as np
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadFaceAnnotations(LoadAnnotations):
    """mmdet's ``LoadAnnotations`` for boxes, plus the landmarks of ``RetinaFaceDataset``.

    Added keys, beside those of mmdet (``gt_bboxes``, ``gt_bboxes_labels``, ``gt_ignore_flags``):

    - gt_keypoints (np.float32, shape (n, 5, 2)): x, y in pixels
    - gt_keypoints_visible (np.float32, shape (n, 5)): 1 where the landmark is annotated
    """

    def transform(self, results: dict) -> dict:
        """Add the annotations of ``results['instances']`` to ``results``."""
        results = super().transform(results)
        instances = results.get('instances', [])
        results['gt_keypoints'] = np.array(
            [instance['keypoints'] for instance in instances], dtype=np.float32
        ).reshape(-1, 5, 2)
        results['gt_keypoints_visible'] = np.array(
            [instance['keypoints_visible'] for instance in instances], dtype=np.float32
        ).reshape(-1, 5)
        return results


@TRANSFORMS.register_module()
class PackFaceInputs(PackDetInputs):
    """mmdet's ``PackDetInputs``, with landmarks.

    ``gt_instances`` and ``ignored_instances`` get ``keypoints`` (float32 tensor, (n, 5, 2)) and
    ``keypoints_visible`` (float32 tensor, (n, 5)) beside ``bboxes`` and ``labels``.
    """

    mapping_table = {
        **PackDetInputs.mapping_table,
        'gt_keypoints': 'keypoints',
        'gt_keypoints_visible': 'keypoints_visible',
    }
