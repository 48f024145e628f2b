"""Load, resize, flip and pack, with landmarks.

mmdet's ``Resize`` and ``RandomFlip`` do not transform ``gt_keypoints``; mmcv's do, but clip them to
the image and do not swap left and right. For ``Pad`` (right and bottom) and
``PhotoMetricDistortion``, which move nothing, use mmdet's own.
"""

from __future__ import annotations

import numpy as np
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmdet.registry import TRANSFORMS

# Left and right eye, nose, left and right mouth corner, as a mirror shows them.
FLIP_INDICES = (1, 0, 2, 4, 3)


@TRANSFORMS.register_module()
class FaceResize(Resize):
    """mmdet's ``Resize``; ``gt_keypoints`` follow and are not clipped.

    A landmark outside the image stays where it is.
    """

    def transform(self, results: dict) -> dict:
        """Resize the image, its boxes and its landmarks."""
        results = super().transform(results)
        if 'gt_keypoints' in results:
            scale = np.asarray(results['scale_factor'], dtype=np.float32)
            results['gt_keypoints'] = results['gt_keypoints'] * scale
        return results


@TRANSFORMS.register_module()
class FaceRandomFlip(RandomFlip):
    """mmdet's ``RandomFlip``; ``gt_keypoints`` follow, and left and right change places.

    A horizontal or vertical mirror makes a left eye a right eye; 'diagonal', a rotation by 180
    degrees, does not. ``results['flip_indices']`` is the order of the landmarks in a mirror; by
    default they are left eye, right eye, nose, left and right mouth corner.
    """

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        if 'gt_keypoints' not in results:
            return
        direction, shape = results['flip_direction'], results['img'].shape[:2]
        keypoints = self._flip_keypoints(results['gt_keypoints'], shape, direction)
        visible = results['gt_keypoints_visible']
        if direction != 'diagonal':
            order = list(results.get('flip_indices', FLIP_INDICES))
            keypoints, visible = keypoints[:, order], visible[:, order]
        results['gt_keypoints'], results['gt_keypoints_visible'] = keypoints, visible


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
