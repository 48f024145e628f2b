"""mmdet's COCO metric with labels in the order of the config's classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from polynl_mmdet.datasets.coco import OrderedCoco, shorten


@METRICS.register_module()
class OrderedCocoMetric(CocoMetric):
    """mmdet's CocoMetric for the labels of ``OrderedCocoDataset``, with any kind of ids.

    pycocotools sorts ids, and mmdet names the AP of each class in the order of the config: images
    and categories are numbered in that order for the evaluation. Result files have the ids of the
    annotation file. Without any detection there are no figures, as in mmdet, and mmengine
    skips the choice of the best checkpoint. Args as for CocoMetric.

    Raises:
        ValueError: The annotation file has none of the classes.
    """

    def __init__(self, ann_file: str | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(None, *args, **kwargs)
        self._numbers: tuple[dict, dict] | None = None
        if ann_file is None:
            return
        with get_local_path(ann_file, backend_args=self.backend_args) as path:
            self._coco_api = OrderedCoco(path)
        annotations = self._coco_api.dataset['annotations']
        unmasked = [a['file_id'] for a in annotations if not a.get('segmentation')]
        if 'segm' in self.metrics and unmasked:
            what = 'objects without a mask count as not detected in mask AP'
            print_log(f'{ann_file}: {len(unmasked)} {what}: {shorten(unmasked)}', logger='current')

    def compute_metrics(self, results: Sequence) -> dict:
        """Compute mmdet's metrics of (ground truth, prediction) per image."""
        if isinstance(self._coco_api, OrderedCoco):
            self._number()
        if self._numbers is not None:
            images = self._numbers[0]
            results = [
                (truth, {**prediction, 'img_id': images.get(prediction['img_id'], 0)})
                for truth, prediction in results
            ]
        metrics = super().compute_metrics(results)
        if self._numbers is not None and self.outfile_prefix is not None:
            self._restore_ids()
        return metrics if any(len(prediction['scores']) for _, prediction in results) else {}

    def _number(self) -> None:
        """Replace the index of the file by one with numbers for ids."""
        coco, classes = self._coco_api, self.dataset_meta['classes']
        ids = sorted(coco.get_img_ids(), key=lambda key: (isinstance(key, str), key))
        images = {key: number for number, key in enumerate(ids, start=1)}
        categories = {key: n for n, key in enumerate(coco.get_cat_ids(cat_names=classes), start=1)}
        self._numbers = images, categories
        self._coco_api = COCO()
        self._coco_api.dataset = dict(
            images=[dict(image, id=images[key]) for key, image in coco.imgs.items()],
            categories=[dict(id=n, name=name) for n, name in enumerate(classes, start=1)],
            annotations=[
                dict(
                    _with_mask(annotation, coco) if 'segm' in self.metrics else annotation,
                    image_id=images[annotation['image_id']],
                    category_id=categories.get(annotation['category_id'], 0),
                )
                for annotation in coco.dataset['annotations']
                if annotation['image_id'] in images
            ],
        )
        self._coco_api.createIndex()

    def _restore_ids(self) -> None:
        """Write the ids of the annotation file to the result files."""
        images, categories = ({n: key for key, n in ids.items()} for ids in self._numbers)
        for path in map(Path, (f'{self.outfile_prefix}.{kind}.json' for kind in ('bbox', 'segm'))):
            if path.is_file():
                found = json.loads(path.read_text())
                for entry in found:
                    entry['image_id'] = images[entry['image_id']]
                    entry['category_id'] = categories[entry['category_id']]
                path.write_text(json.dumps(found))


def _with_mask(annotation: dict, coco: COCO) -> dict:
    """Return an annotation with its mask as run lengths, which are empty if it has none."""
    mask = annotation.get('segmentation')
    if isinstance(mask, list) and not (mask and len(mask[0]) >= 4):
        mask = [polygon for polygon in mask if len(polygon) >= 6]
    if mask:
        return dict(annotation, segmentation=coco.annToRLE(dict(annotation, segmentation=mask)))
    image = coco.imgs[annotation['image_id']]
    size = [image['height'], image['width']]
    return dict(annotation, segmentation=dict(size=size, counts=[size[0] * size[1]]))
