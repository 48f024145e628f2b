"""mmdet's COCO data set over annotations that are checked before training starts."""

from __future__ import annotations

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from polynl_mmdet.coco_annotations import CheckedCoco
from polynl_mmdet.datasets.bad_images import BadImagePolicy
from polynl_mmdet.errors import InputError


@DATASETS.register_module()
class CheckedCocoDataset(BadImagePolicy, CocoDataset):
    """mmdet's CocoDataset that stops at an annotation file which does not fit the config.

    Without the check a file that lacks the config's classes trains on nothing, one with its
    categories in another order trains on labels with each other's names, and a file that is cut off
    ends in a message without its name. Args as for mmdet's CocoDataset, and ``bad_images`` of
    :class:`~polynl_mmdet.datasets.bad_images.BadImagePolicy`.

    Raises:
        InputError: See :class:`~polynl_mmdet.coco_annotations.CheckedCoco` and ``BadImagePolicy``.
    """

    COCOAPI = CheckedCoco

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse an image as mmdet does; if the pipeline loads masks, every instance must have one.

        Raises:
            InputError: An instance has none.
        """
        data = super().parse_data_info(raw_data_info)
        complete = all('mask' in instance for instance in data['instances'])
        if not complete and any(getattr(t, 'with_mask', False) for t in self.pipeline.transforms):
            ids = [a['id'] for a in raw_data_info['raw_ann_info'] if not a.get('segmentation')]
            raise InputError(
                f'{self.ann_file}: annotation {ids[0]!r}',
                'no segmentation, and the pipeline loads masks',
                'accepted: polygons or run lengths for every annotation, or LoadAnnotations '
                'without with_mask',
            )
        return data
