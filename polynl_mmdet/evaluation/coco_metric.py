"""mmdet's COCO metric with labels in the order of the config's classes."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType, MethodType
from typing import Any

from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from polynl_mmdet.datasets.coco import OrderedCoco, shorten


@METRICS.register_module()
class OrderedCocoMetric(CocoMetric):
    """mmdet's CocoMetric for the labels of ``OrderedCocoDataset``, with any kind of ids.

    In mask AP an object without a mask counts neither way. Without any detection there are no
    figures, as in mmdet, and mmengine goes on without choosing a best checkpoint.

    Args:
        ann_file (str, optional): The annotation file. Defaults to None: that of the data set.
        *args, **kwargs: As for mmdet's CocoMetric.
        backend (str): 'pycocotools', or 'faster' for faster-coco-eval, which gives the same figures
            in less time. Defaults to 'pycocotools'.

    Raises:
        ValueError: Another backend, or the annotation file has none of the classes.
    """

    def __init__(
        self, ann_file: str | None = None, *args: Any, backend: str = 'pycocotools', **kwargs: Any
    ) -> None:
        super().__init__(None, *args, **kwargs)
        evaluator = COCOeval
        if backend == 'faster':
            from faster_coco_eval import COCOeval_faster as evaluator
        elif backend != 'pycocotools':
            raise ValueError(f"got backend={backend!r}, expected 'pycocotools' or 'faster'")
        # mmdet's method takes its evaluator and index from the names of its module; a copy of it
        # with names of its own leaves that module as it is.
        method = CocoMetric.compute_metrics
        names = {'COCOeval': _numbered(evaluator), 'COCO': OrderedCoco}
        copy = FunctionType(method.__code__, {**method.__globals__, **names})
        self._compute_metrics = MethodType(copy, self)
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=self.backend_args) as path:
                self._coco_api = OrderedCoco(path)
            annotations = self._coco_api.dataset['annotations']
            unmasked = [a['file_id'] for a in annotations if not a.get('segmentation')]
            if 'segm' in self.metrics and unmasked:
                print_log(
                    f'{ann_file}: {len(unmasked)} annotations without a mask do not count in mask '
                    f'AP: {shorten(unmasked)}',
                    logger='current',
                )

    def compute_metrics(self, results: Sequence) -> dict:
        """Compute mmdet's metrics.

        Args:
            results (Sequence[tuple[dict, dict]]): Ground truth and prediction per image.

        Returns:
            dict[str, float]: For example 'bbox_mAP' and 'segm_mAP_50'.
        """
        metrics = self._compute_metrics(results)
        return metrics if any(len(prediction['scores']) for _, prediction in results) else {}


def _numbered(evaluator: type) -> type:
    """Return an evaluator that numbers images and categories, whatever their ids are.

    Numbers follow the order of the classes, by which mmdet names the APs per class.
    """

    class Evaluation(evaluator):
        def evaluate(self) -> None:
            params = self.params
            images = {key: n for n, key in enumerate(_sorted(params.imgIds), start=1)}
            categories = {key: n for n, key in enumerate(params.catIds, start=1)}
            masks = params.iouType == 'segm'
            self.cocoGt = _copy(self.cocoGt, images, categories, masks)
            self.cocoDt = _copy(self.cocoDt, images, categories)
            params.imgIds, params.catIds = list(images.values()), list(categories.values())
            super().evaluate()

    return Evaluation


def _copy(coco: COCO, images: dict, categories: dict, masks: bool = False) -> COCO:
    """Copy an index with other ids and, if asked, with masks as run lengths."""
    numbered = COCO()
    numbered.dataset = dict(
        images=[dict(i, id=images[i['id']]) for i in coco.dataset['images'] if i['id'] in images],
        categories=[dict(id=number) for number in categories.values()],
        annotations=[
            dict(
                _with_mask(annotation, coco) if masks else annotation,
                image_id=images[annotation['image_id']],
                category_id=categories.get(annotation['category_id'], 0),
            )
            for annotation in coco.dataset['annotations']
            if annotation['image_id'] in images
        ],
    )
    numbered.createIndex()
    return numbered


def _with_mask(annotation: dict, coco: COCO) -> dict:
    """Return an annotation with its mask as run lengths; an empty one, not to count, for none."""
    mask = annotation.get('segmentation')
    if isinstance(mask, list) and not (mask and len(mask[0]) >= 4):
        mask = [polygon for polygon in mask if len(polygon) >= 6]
    if mask:
        return dict(annotation, segmentation=coco.annToRLE(dict(annotation, segmentation=mask)))
    image = coco.imgs[annotation['image_id']]
    size = [image['height'], image['width']]
    return dict(annotation, segmentation=dict(size=size, counts=[size[0] * size[1]]), iscrowd=1)


def _sorted(ids: Sequence) -> list:
    return sorted(ids, key=lambda key: (isinstance(key, str), key))
