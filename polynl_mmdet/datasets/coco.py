"""mmdet's COCO data set with labels in the order of the config's classes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.logging import print_log


class OrderedCoco(COCO):
    """mmdet's index of a COCO file, with category ids in the order of given names.

    Annotations are numbered from 1: pycocotools takes an id of 0 for "no match", and needs numbers.
    A category that occurs twice is one category. What is missing of ``area`` and ``iscrowd`` is
    filled in; annotations without a box are skipped.
    """

    def createIndex(self) -> None:
        """Index the file; called by pycocotools once it is read."""
        first: dict = {}
        same = {c['id']: first.setdefault(c['name'], c['id']) for c in self.dataset['categories']}
        annotations, without_box = [], []
        for annotation in self.dataset.get('annotations', []):
            box, category = annotation.get('bbox'), annotation['category_id']
            if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
                without_box.append(annotation.get('id'))
                continue
            if not _is_number(annotation.get('area')):
                annotation['area'] = box[2] * box[3]
            annotation['iscrowd'] = int(annotation.get('iscrowd') or 0)
            annotation['category_id'] = same.get(category, category)
            annotation['file_id'] = annotation.get('id')
            annotations.append(annotation)
            annotation['id'] = len(annotations)
        if without_box:
            what = f'{len(without_box)} annotations without a box: {shorten(without_box)}'
            print_log(f'skipped {what}', logger='current')
        self.dataset['annotations'] = annotations
        super().createIndex()

    def get_ann_ids(self, img_ids: Any = (), *args, **kwargs) -> list:
        """Return annotation ids as mmdet does; a text is one image id."""
        img_ids = [img_ids] if isinstance(img_ids, str) else img_ids
        return super().get_ann_ids(img_ids, *args, **kwargs)

    def loadCats(self, ids: Any = ()) -> list:
        """Return categories as pycocotools does; a text is one id."""
        return super().loadCats([ids] if isinstance(ids, str) else ids)

    def get_cat_ids(
        self, cat_names: Sequence = (), sup_names: Sequence = (), cat_ids: Sequence = ()
    ) -> list:
        """Return category ids, those of ``cat_names`` in their order.

        A class that is not in the file gets an id that no annotation has.
        """
        if not cat_names:
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        if isinstance(cat_names, str):
            raise ValueError(f"got classes='{cat_names}', expected a tuple: ('{cat_names}',)")
        ids: dict = {}
        for key, category in self.cats.items():
            ids.setdefault(category['name'], key)
        missing = [name for name in cat_names if name not in ids]
        if len(missing) == len(cat_names):
            raise ValueError(
                f'the annotation file has the categories {shorten(ids)}, none of the classes '
                f'{shorten(cat_names)}; set metainfo=dict(classes=...) of the data set'
            )
        if missing:
            others = [name for name in ids if name not in cat_names]
            near = [match for name in missing for match in get_close_matches(name, others, n=1)]
            hint = f'; did you mean {shorten(near)}?' if near else ''
            text = f'the annotation file has no category for the classes {shorten(missing)}{hint}'
            print_log(text, logger='current', level=logging.WARNING)
        for number, name in enumerate(missing, start=1):
            ids[name] = f'missing {number}'
            self.cats[ids[name]] = dict(id=ids[name], name=name)
        return [ids[name] for name in cat_names]


@DATASETS.register_module()
class OrderedCocoDataset(CocoDataset):
    """mmdet's CocoDataset whose label i is ``metainfo['classes'][i]``.

    In mmdet, label i is the i-th category *of the annotation file* among the classes. The log says
    how many images and objects are read, and what is skipped and why. Args as for CocoDataset.

    Raises:
        ValueError: The file does not fit the config, or nothing in it can be trained on.
    """

    COCOAPI = OrderedCoco

    def load_data_list(self) -> list:
        """Load the annotation file; errors name it."""
        self._objects, self._skipped = 0, Counter()
        try:
            return super().load_data_list()
        except KeyError as error:
            raise ValueError(f'{self.ann_file}: an entry has no {error}') from error
        except (OSError, ValueError) as error:
            raise ValueError(f'{self.ann_file}: {error}') from error

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse an image as mmdet does, and count the objects that training skips."""
        data = super().parse_data_info(raw_data_info)
        annotations, instances = raw_data_info['raw_ann_info'], data['instances']
        in_classes = sum(a['category_id'] in self.cat_ids for a in annotations)
        used = [instance for instance in instances if not instance['ignore_flag']]
        self._objects += len(annotations)
        self._skipped['of other categories'] += len(annotations) - in_classes
        self._skipped['too small, outside or marked ignore'] += in_classes - len(instances)
        self._skipped['crowd'] += len(instances) - len(used)
        for transform in self.pipeline.transforms:
            if getattr(transform, 'with_mask', False):
                # mmdet ignores an object whose mask is invalid, and fails on one without a mask.
                for instance in instances:
                    instance.setdefault('mask', [])
                lacking = [i for i in used if not _is_mask(i['mask'], transform.poly2mask)]
                reason = f'without a mask (poly2mask={transform.poly2mask})'
                self._skipped[reason] += len(lacking)
        return data

    def filter_data(self) -> list:
        """Filter images as mmdet does, and log what is left; raise ValueError if nothing is."""
        kept = super().filter_data()
        skipped = ', '.join(f'{n} {reason}' for reason, n in self._skipped.items() if n)
        skipped = f' (skipped: {skipped})' if skipped else ''
        images = f'{len(kept)} of {len(self.data_list)} images'
        report = f'{self.ann_file}: {images}, {self._objects} objects{skipped}'
        unusable = self._objects and self._objects <= sum(self._skipped.values())
        if not kept or (unusable and not self.test_mode):
            raise ValueError(f'{report}: nothing is left; filter_cfg={self.filter_cfg}')
        print_log(report, logger='current')
        return kept


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_mask(mask: Any, poly2mask: bool) -> bool:
    """Return whether mmdet's LoadAnnotations uses a mask."""
    if isinstance(mask, list):
        return any(len(polygon) % 2 == 0 and len(polygon) >= 6 for polygon in mask)
    return poly2mask


def shorten(items: Iterable, count: int = 5) -> str:
    """Join the first items of a list for a message."""
    items = list(items)
    more = f' and {len(items) - count} more' if len(items) > count else ''
    return ', '.join(map(repr, items[:count])) + more
