"""mmdet's COCO metric, over annotations that are checked, and with an AP for no detection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType, MethodType

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from polynl_mmdet.coco_annotations import CheckedCoco
from polynl_mmdet.errors import InputError

AP_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


@METRICS.register_module()
class CheckedCocoMetric(CocoMetric):
    """mmdet's CocoMetric, which reports nothing at all for a model that detects nothing.

    No detection is an AP of 0: early in training, or for a schedule that failed, that is what a
    log, a plot or the choice of the best checkpoint needs.

    Args:
        backend (str): 'pycocotools', or 'faster' for faster-coco-eval, which gives the same figures
            in less time. Defaults to 'pycocotools'.
        *args, **kwargs: As for mmdet's CocoMetric.

    Raises:
        InputError: Another backend, or one that is not installed; the annotation file is not as
            COCO has it; or, once the metric is told the data set's classes, they are not those of
            the file or in another order.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        *args,
        backend: str = 'pycocotools',
        sort_categories: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(None, *args, **kwargs)
        if backend not in ('pycocotools', 'faster'):
            raise InputError('backend', repr(backend), "accepted: 'pycocotools', 'faster'")
        if backend == 'faster' and self.use_mp_eval:
            raise InputError('use_mp_eval', "True with backend='faster'", 'accepted: one of them')
        self._compute_metrics = _faster_compute_metrics() if backend == 'faster' else None
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=self.backend_args) as path:
                self._coco_api = CheckedCoco(path)
            if sort_categories:
                self._coco_api.dataset['categories'].sort(key=lambda category: category['id'])

    @property
    def dataset_meta(self) -> dict | None:
        """dict: The data set's metainfo, whose classes are compared with the annotation file."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        if self._coco_api is not None:
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=meta['classes'])

    def compute_metrics(self, results: Sequence[tuple[dict, dict]]) -> dict[str, float]:
        """Compute mmdet's metrics, with zeros for an AP that no detection leaves undefined.

        Args:
            results (Sequence[tuple[dict, dict]]): Ground truth and prediction of each image.

        Returns:
            dict[str, float]: For example 'bbox_mAP' and 'segm_mAP_50'.
        """
        compute = super().compute_metrics
        if self._compute_metrics is not None:
            compute = MethodType(self._compute_metrics, self)
        metrics = compute(results)
        if self.format_only or any(len(found['scores']) for _, found in results):
            return metrics
        for kind in self.metrics:
            if kind in ('bbox', 'segm'):
                names = [f'{kind}_{item}' for item in self.metric_items or AP_ITEMS]
                metrics.update(dict.fromkeys(names, 0.0))
                print_log(
                    f'no detection in {len(results)} images: {", ".join(names)} are 0',
                    logger='current',
                )
        return metrics


def _faster_compute_metrics() -> Callable:
    """Return mmdet's ``compute_metrics`` over faster-coco-eval.

    mmdet's method finds its evaluator among the names of its module. A copy of the method with one
    name of its own leaves that module as it is.
    """
    try:
        from faster_coco_eval import COCOeval_faster
    except ImportError:
        raise InputError(
            'backend', "'faster' without faster-coco-eval", 'accepted: pip install faster-coco-eval'
        ) from None
    method = CocoMetric.compute_metrics
    return FunctionType(method.__code__, {**method.__globals__, 'COCOeval': COCOeval_faster})
