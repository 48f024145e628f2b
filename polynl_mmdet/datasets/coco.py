"""COCO annotations that are compared with the config before training starts."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from polynl_mmdet.coco_annotations import read_coco
from polynl_mmdet.datasets.checked_images import CheckedImages
from polynl_mmdet.errors import InputError


class CheckedCoco(COCO):
    """mmdet's COCO index that names the file at fault.

    Args:
        annotation_file (str): A COCO JSON file.

    Raises:
        InputError: The file is missing or is not whole JSON, an entry is not as COCO has it (see
            :func:`~polynl_mmdet.coco_annotations.check_coco`); or, when the categories of the
            config's classes are asked for, a class is not in the file.
    """

    def __init__(self, annotation_file: str) -> None:
        self.path = annotation_file
        content = read_coco(annotation_file)
        super().__init__(None)
        self.dataset = content
        self.createIndex()
        # mmdet names them so; its own constructor does it for an empty index.
        self.img_ann_map = self.imgToAnns
        self.cat_img_map = self.catToImgs

    def get_cat_ids(
        self, cat_names: Sequence = (), sup_names: Sequence = (), cat_ids: Sequence = ()
    ) -> list[int]:
        """As mmdet's, but every name must be in the file.

        Returns:
            list[int]: Category ids.
        """
        names = {category['id']: category['name'] for category in self.dataset['categories']}
        lacking = [name for name in cat_names if name not in names.values()]
        if lacking:
            raise InputError(
                self.path,
                f'has the categories {_shown(list(names.values()))}, but not {_shown(lacking)} of '
                "the config's classes",
                'accepted: a file with every class; to fit another file set metainfo=dict('
                "classes=...) of the datasets and num_classes of the model's heads",
            )
        if cat_names:
            self._report_unused(names, set(cat_names))
        return super().get_cat_ids(cat_names, sup_names, cat_ids)

    def _report_unused(self, names: dict[int, str], classes: set[str]) -> None:
        annotations = self.dataset['annotations']
        unused = sum(names.get(a['category_id']) not in classes for a in annotations)
        if unused:
            print_log(
                f'{self.path}: {unused} of {len(annotations)} annotations are of categories that '
                "the config's classes leave out",
                logger='current',
            )


@DATASETS.register_module()
class CheckedCocoDataset(CheckedImages, CocoDataset):
    """mmdet's CocoDataset that stops at an annotation file which does not fit the config.

    Without the check a file that lacks the config's classes trains on nothing, and a file that is
    cut off ends in a message without its name. Args as for mmdet's CocoDataset, and
    ``bad_images`` of :class:`~polynl_mmdet.datasets.checked_images.CheckedImages`.

    Raises:
        InputError: See :class:`CheckedCoco` and ``CheckedImages``.
    """

    COCOAPI = CheckedCoco

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """As mmdet's; where the pipeline loads masks, every instance must have one."""
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


def _shown(names: list[str], most: int = 5) -> str:
    shown = ', '.join(map(repr, names[:most]))
    return shown if len(names) <= most else f'{shown} and {len(names) - most} more'
