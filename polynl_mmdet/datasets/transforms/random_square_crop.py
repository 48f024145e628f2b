"""The random square crop that face detectors are trained with."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type


@TRANSFORMS.register_module()
class RandomSquareCrop(BaseTransform):
    """Crop a random square from the image (RetinaFace, arXiv 1905.00641, section 4.2).

    The side is drawn uniformly from ``scale_range`` times the shorter edge, the position uniformly
    inside the image. A face is kept if the centre of its box is inside the crop; its box is clipped
    to the crop, its landmarks are moved and not clipped. A crop without a face that is not ignored
    is drawn again, up to ``max_tries`` times; then a face is drawn, and a position that contains
    its centre. Images without such a face are cropped too.

    Optional keys, beside img: gt_bboxes (``BaseBoxes``), gt_bboxes_labels, gt_ignore_flags,
    gt_keypoints, gt_keypoints_visible.

    Args:
        scale_range (tuple[float, float]): Min and max side, relative to the shorter edge, in
            (0, 1]. Defaults to (0.3, 1.0).
        max_tries (int): Crops drawn before one is placed on a face. Defaults to 50.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, scale_range: tuple[float, float] = (0.3, 1.0), max_tries: int = 50) -> None:
        if len(scale_range) != 2 or not 0 < scale_range[0] <= scale_range[1] <= 1:
            raise ValueError(f'scale_range: got {scale_range}, expected 0 < low <= high <= 1')
        if max_tries < 1:
            raise ValueError(f'max_tries: got {max_tries}, expected at least 1')
        self.scale_range = tuple(scale_range)
        self.max_tries = max_tries

    @cache_randomness
    def _draw_crop(
        self, width: int, height: int, centres: np.ndarray | None
    ) -> tuple[int, int, int]:
        """Draw left, top and side of a crop that contains one of the centres, if there are any."""
        for _ in range(self.max_tries):
            side = self._draw_side(width, height)
            corner = [np.random.randint(length - side + 1) for length in (width, height)]
            if centres is None or _inside(centres, np.array(corner), side).any():
                return (*corner, side)
        centre = np.floor(centres[np.random.randint(len(centres))]).astype(int)
        side = self._draw_side(width, height)
        low = np.maximum(centre - side + 1, 0)
        high = np.minimum(centre, np.array([width, height]) - side)
        left, top = (np.random.randint(a, b + 1) for a, b in zip(low, high))
        return left, top, side

    def _draw_side(self, width: int, height: int) -> int:
        shorter = min(width, height)
        return int(np.clip(round(shorter * np.random.uniform(*self.scale_range)), 1, shorter))

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Crop the image, its boxes and its landmarks."""
        height, width = results['img'].shape[:2]
        boxes = results.get('gt_bboxes')
        targets = None
        if boxes is not None:
            centres = boxes.centers.numpy()
            usable = _inside(centres, np.zeros(2), np.array([width, height]))
            if 'gt_ignore_flags' in results:
                usable &= ~results['gt_ignore_flags'].astype(bool)
            targets = centres[usable] if usable.any() else None
        left, top, side = self._draw_crop(width, height, targets)
        results['img'] = results['img'][top : top + side, left : left + side]
        results['img_shape'] = (side, side)
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], dtype=np.float32)
        before = results.get('homography_matrix')
        results['homography_matrix'] = shift if before is None else shift @ before
        if boxes is not None:
            kept = _inside(centres, np.array([left, top]), side)
            boxes.translate_([-left, -top])
            boxes.clip_((side, side))
            results['gt_bboxes'] = boxes[kept]
            for key in ('gt_bboxes_labels', 'gt_ignore_flags', 'gt_keypoints_visible'):
                if key in results:
                    results[key] = results[key][kept]
            if 'gt_keypoints' in results:
                corner = np.array([left, top], dtype=np.float32)
                results['gt_keypoints'] = results['gt_keypoints'][kept] - corner
        return results


def _inside(points: np.ndarray, corner: np.ndarray, size: np.ndarray | int) -> np.ndarray:
    """Return which points, shape (n, 2), are in the box of this corner and size: bool, (n,)."""
    return ((points >= corner) & (points < corner + size)).all(axis=1)
