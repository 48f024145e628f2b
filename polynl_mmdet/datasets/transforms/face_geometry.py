"""Resize and flip, with landmarks.

mmdet's ``Resize`` and ``RandomFlip`` leave ``gt_keypoints`` where they were, and mmcv's move them
but clip them to the image and keep left eyes left. ``Pad`` adds pixels at the right and bottom
and ``PhotoMetricDistortion`` moves nothing: mmdet's own serve.
"""

from __future__ import annotations

import numpy as np
from mmdet.datasets.transforms import RandomFlip, Resize
from mmdet.registry import TRANSFORMS

# Left and right eye, nose, left and right mouth corner, seen in a mirror.
MIRRORED = (1, 0, 2, 4, 3)


@TRANSFORMS.register_module()
class FaceResize(Resize):
    """mmdet's ``Resize``; ``gt_keypoints`` follow and are not clipped.

    Clipping would put a landmark that lies outside the image in a place where it is not.
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

    A mirror, horizontal or vertical, makes a left eye a right eye. 'diagonal' is both mirrors, a
    turn by 180 degrees, and leaves it a left eye.
    """

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        if 'gt_keypoints' not in results:
            return
        direction = results['flip_direction']
        keypoints = self._flip_keypoints(
            results['gt_keypoints'], results['img'].shape[:2], direction
        )
        visible = results['gt_keypoints_visible']
        if direction != 'diagonal':
            keypoints, visible = keypoints[:, MIRRORED], visible[:, MIRRORED]
        results['gt_keypoints'], results['gt_keypoints_visible'] = keypoints, visible
