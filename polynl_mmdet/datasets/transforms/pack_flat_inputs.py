"""Packing that also takes images of one pixel's width or height that were flipped."""

from __future__ import annotations

from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackFlatInputs(PackDetInputs):
    """mmdet's ``PackDetInputs``, for images that are resized to a single column or row too.

    NumPy calls a flipped image contiguous if it is one pixel wide, though its stride is negative,
    and torch takes no negative stride: mmdet's packing ends in a ValueError there.
    """

    def transform(self, results: dict) -> dict:
        """As mmdet's: ``inputs`` (uint8 or float32 tensor, (C, H, W)) and ``data_samples``."""
        img = results.get('img')
        if img is not None and img.flags.c_contiguous and min(img.strides) < 0:
            results['img'] = img.copy()
        return super().transform(results)
