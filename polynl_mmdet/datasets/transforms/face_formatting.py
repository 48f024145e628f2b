"""Load landmarks from a dataset's instances, and pack them into the data sample."""

from __future__ import annotations

import numpy as np
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.registry import TRANSFORMS

from polynl_mmdet.datasets.transforms.face_geometry import FLIP_INDICES


@TRANSFORMS.register_module()
class LoadFaceAnnotations(LoadAnnotations):
    """mmdet's ``LoadAnnotations`` for boxes, plus the landmarks of ``RetinaFaceDataset``.

    They are ``gt_keypoints`` (float32, (n, K, 2)), x, y in pixels, and ``gt_keypoints_visible``
    (float32, (n, K)), 1 where the landmark is annotated.
    """

    def transform(self, results: dict) -> dict:
        """Add the annotations of ``results['instances']`` to ``results``."""
        results = super().transform(results)
        instances = results.get('instances', [])
        points = len(results.get('flip_indices', FLIP_INDICES))
        for key, shape in (('keypoints', (-1, points, 2)), ('keypoints_visible', (-1, points))):
            values = [instance[key] for instance in instances]
            results[f'gt_{key}'] = np.array(values, dtype=np.float32).reshape(shape)
        return results


@TRANSFORMS.register_module()
class PackFaceInputs(PackDetInputs):
    """mmdet's ``PackDetInputs``, with landmarks.

    ``gt_instances`` and ``ignored_instances`` get ``keypoints`` (float32 tensor, (n, K, 2)) and
    ``keypoints_visible`` (float32 tensor, (n, K)) beside ``bboxes`` and ``labels``.
    """

    mapping_table = {
        **PackDetInputs.mapping_table,
        'gt_keypoints': 'keypoints',
        'gt_keypoints_visible': 'keypoints_visible',
    }
