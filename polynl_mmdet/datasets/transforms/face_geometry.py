"""Resize and flip, with landmarks.

mmdet's ``Resize`` and ``RandomFlip`` do not transform ``gt_keypoints``; mmcv's do, but clip them to
the image and do not swap left and right. For ``Pad`` (right and bottom) and
``PhotoMetricDistortion``, which move nothing, use mmdet's own.
"""

from __future__ import annotations

import numpy as np
from mmdet.datasets.transforms import RandomFlip, Resize
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
