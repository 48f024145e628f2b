"""AP of one class from stored detections, over any sample of the images, and its bootstrap."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import bootstrap

RECALLS = np.linspace(0, 1, 101)


class ImageMatches:
    """COCO's matches of one run's detections, which any sample of the images can be scored from.

    pycocotools matches detections and objects, image by image. Summing them up is done here, for
    images that count any number of times, as a bootstrap draws them: pycocotools' own sum takes a
    hundred times as long.

    Args:
        truth (COCO): Annotations of one category.
        detections (list[dict]): COCO results.
        kind (str): 'bbox' or 'segm'.

    Attributes:
        images (int): Number of images.
    """

    def __init__(self, truth: COCO, detections: list[dict], kind: str) -> None:
        self.images = len(truth.getImgIds())
        with redirect_stdout(StringIO()):
            found = truth.loadRes(detections) if detections else COCO()
            evaluator = COCOeval(truth, found, kind)
            evaluator.params.maxDets = [100]
            evaluator.evaluate()
        self._areas = {
            area: _sorted_detections(evaluator.evalImgs[index * self.images :][: self.images])
            for index, area in enumerate(evaluator.params.areaRngLbl)
        }

    def ap(
        self,
        weights: np.ndarray | None = None,
        area: str = 'all',
        thresholds: slice = slice(0, 10),
    ) -> np.ndarray:
        """Average precision at COCO's IoU thresholds.

        Args:
            weights (np.ndarray, optional): Shape (images,): how often each image counts. Defaults
                to None: once.
            area (str): 'all', 'small', 'medium' or 'large', as COCO divides them. Defaults to
                'all'.
            thresholds (slice): Of 0.5, 0.55, ..., 0.95. Defaults to all ten.

        Returns:
            np.ndarray: One value a threshold, between 0 and 1; nan if no object counts.
        """
        image, hits, counts, objects = self._areas[area]
        weights = np.ones(self.images) if weights is None else weights
        total = weights @ objects
        if not total:
            return np.full(len(hits[thresholds]), np.nan)
        drawn = weights[image]
        return np.array(
            [
                _average_precision(np.cumsum(drawn[hit]), np.cumsum(drawn * counted)[hit], total)
                for hit, counted in zip(hits[thresholds], counts[thresholds])
            ]
        )


def _average_precision(true: np.ndarray, either: np.ndarray, total: float) -> float:
    """float: AP from what is counted up to each hit: hits, and hits and false detections."""
    precision = np.divide(true, either, out=np.zeros_like(true), where=either > 0)
    # The highest precision at this recall or more; 0 where a recall is not reached.
    precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return precision[np.searchsorted(true / total, RECALLS, side='left')].mean()


def _sorted_detections(
    results: list[dict | None],
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, np.ndarray]:
    """Detections of all images by falling score.

    Args:
        results (list[dict or None]): What COCOeval found out about each image.

    Returns:
        tuple: The detection's image, shape (D,); at each threshold the indices of those that match
        an object; whether a detection counts, shape (10, D); and objects that count, shape
        (images,).
    """
    objects = np.array([0 if r is None else int((r['gtIgnore'] == 0).sum()) for r in results])
    known = [(index, result) for index, result in enumerate(results) if result is not None]
    if not known:
        nothing = np.zeros(0, dtype=int)
        return nothing, [nothing] * 10, np.zeros((10, 0), dtype=bool), objects
    image = np.concatenate([np.full(len(r['dtScores']), index) for index, r in known])
    scores = np.concatenate([r['dtScores'] for _, r in known])
    matched = np.concatenate([r['dtMatches'] > 0 for _, r in known], axis=1)
    counted = ~np.concatenate([r['dtIgnore'].astype(bool) for _, r in known], axis=1)
    order = np.argsort(-scores, kind='mergesort')
    matched, counted = matched[:, order], counted[:, order]
    hits = [np.flatnonzero(row) for row in matched & counted]
    return image[order].astype(int), hits, counted, objects


def difference_interval(
    with_layer: list[ImageMatches],
    without: list[ImageMatches],
    thresholds: slice,
    resamples: int,
    area: str = 'all',
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Mean difference in AP of paired runs, and its confidence interval.

    Seeds and images are both drawn anew, with replacement (SciPy's percentile bootstrap): the
    interval is about other seeds and other images of the same kind.

    Args:
        with_layer (list[ImageMatches]): A run a seed.
        without (list[ImageMatches]): The control's, in the same order of seeds.
        thresholds (slice): Of the ten IoU thresholds, those to average over.
        resamples (int): Number of samples drawn.
        area (str): As for :meth:`ImageMatches.ap`. Defaults to 'all'.
        confidence (float): Defaults to 0.95.

    Returns:
        tuple[float, float, float]: Mean difference, lower and upper end; nan where so few images
        hold an object of this area that some samples have none.
    """
    images = without[0].images

    def difference(seeds: np.ndarray, drawn: np.ndarray) -> float:
        weights = np.bincount(drawn, minlength=images).astype(float)
        values = {
            seed: with_layer[seed].ap(weights, area, thresholds).mean()
            - without[seed].ap(weights, area, thresholds).mean()
            for seed in set(seeds.tolist())
        }
        return float(np.mean([values[seed] for seed in seeds.tolist()]))

    seeds, every = np.arange(len(without)), np.arange(images)
    found = bootstrap(
        (seeds, every),
        difference,
        n_resamples=resamples,
        confidence_level=confidence,
        vectorized=False,
        method='percentile',
        rng=np.random.default_rng(0),
    )
    interval = found.confidence_interval
    return difference(seeds, every), float(interval.low), float(interval.high)
