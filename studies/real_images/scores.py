"""AP of stored detections, and bootstrap intervals of paired differences."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import bootstrap

from polynl_mmdet.runs import markdown, mean_and_spread, show_interval
from polynl_mmdet.wider_face import read_predictions
from polynl_mmdet.wider_face.annotations import read_annotations

RECALLS = np.linspace(0, 1, 101)
# Name to COCO's kind and its IoU thresholds 0.5, 0.55, ..., 0.95.
METRICS = {
    f'{kind} {name}': (kind, thresholds)
    for kind in ('bbox', 'segm')
    for name, thresholds in (('AP', slice(0, 10)), ('AP50', slice(0, 1)))
}


class ImageMatches:
    """COCO's matches of one run's detections, to average over any sample of the images.

    pycocotools matches; AP is computed here, as its own takes a hundred times as long.
    """

    def __init__(self, truth: COCO, detections: list[dict], kind: str) -> None:
        self.images = len(truth.getImgIds())
        with redirect_stdout(StringIO()):
            evaluator = COCOeval(truth, truth.loadRes(detections) if detections else COCO(), kind)
            evaluator.params.maxDets = [100]
            evaluator.params.areaRng = evaluator.params.areaRng[:1]
            evaluator.evaluate()
        results = evaluator.evalImgs
        self.objects = np.array([0 if r is None else sum(r['gtIgnore'] == 0) for r in results])
        known = [(index, r) for index, r in enumerate(results) if r is not None]
        scores = np.concatenate([[], *(r['dtScores'] for _, r in known)])
        order = np.argsort(-scores, kind='mergesort')
        image = [np.full(len(r['dtScores']), index) for index, r in known]
        self.image = np.concatenate([np.zeros(0, dtype=int), *image])[order]
        empty = np.zeros((10, 0))
        ignored = np.concatenate([empty, *(r['dtIgnore'] for _, r in known)], axis=1)[:, order]
        matches = np.concatenate([empty, *(r['dtMatches'] for _, r in known)], axis=1)[:, order]
        self.counted = ignored == 0
        self.hits = [np.flatnonzero(row) for row in (matches > 0) & self.counted]

    def ap(self, thresholds: slice, weights: np.ndarray | None = None) -> float:
        """Average precision over some of the ten IoU thresholds; images count by weights."""
        weights = np.ones(self.images) if weights is None else weights
        total, drawn = weights @ self.objects, weights[self.image]
        values = []
        for hits, counted in zip(self.hits[thresholds], self.counted[thresholds]):
            true, found = np.cumsum(drawn[hits]), np.cumsum(drawn * counted)[hits]
            precision = np.divide(true, found, out=np.zeros_like(true), where=found > 0)
            precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
            values.append(precision[np.searchsorted(true / total, RECALLS)].mean())
        return float(np.mean(values))


def difference_interval(
    runs: list[ImageMatches], control: list[ImageMatches], thresholds: slice, resamples: int
) -> tuple[float, float, float]:
    """Mean difference in AP of paired runs and its 95 % percentile bootstrap interval.

    Seeds and images are both resampled; the runs have the same seeds in the same order.
    """

    def difference(seeds: np.ndarray, drawn: np.ndarray) -> float:
        weights = np.bincount(drawn, minlength=control[0].images).astype(float)
        values = {
            seed: runs[seed].ap(thresholds, weights) - control[seed].ap(thresholds, weights)
            for seed in set(seeds.tolist())
        }
        return float(np.mean([values[seed] for seed in seeds.tolist()]))

    every = np.arange(len(control)), np.arange(control[0].images)
    interval = bootstrap(
        every, difference, n_resamples=resamples, vectorized=False, method='percentile',
        random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return difference(*every), float(interval.low), float(interval.high)


def read_truth(file: Path) -> COCO:
    """Read COCO annotations, or WIDER FACE's: ignored faces become crowds."""
    with redirect_stdout(StringIO()):
        if file.suffix == '.json':
            return COCO(str(file))
        faces = read_annotations(file)
        truth = COCO()
        images = [{'id': i + 1, 'file_name': name} for i, name in enumerate(faces.names)]
        image_ids = np.repeat(np.arange(len(images)) + 1, np.diff(faces.starts)).tolist()
        boxes = faces.boxes()
        boxes[:, 2:] -= boxes[:, :2]
        annotations = [
            dict(id=row + 1, image_id=image, category_id=1, bbox=box, area=box[2] * box[3],
                 iscrowd=int(ignored))
            for row, (image, box, ignored) in enumerate(
                zip(image_ids, boxes.tolist(), faces.invalid())
            )
        ]  # fmt: skip
        categories = [{'id': 1, 'name': 'face'}]
        truth.dataset = dict(images=images, annotations=annotations, categories=categories)
        truth.createIndex()
        return truth


def read_detections(truth: COCO, prefix: Path, kind: str) -> list[dict] | None:
    """Read COCO results PREFIX.KIND.json, or WIDER FACE's prediction files in folder PREFIX."""
    if not prefix.is_dir():
        return json.loads(Path(f'{prefix}.{kind}.json').read_text(encoding='utf-8'))
    if kind == 'segm':
        return None
    found = read_predictions(prefix)[0]
    return [
        dict(image_id=image['id'], category_id=1, bbox=box, score=score)
        for image in truth.dataset['images']
        for *box, score in found.get(image['file_name'].rsplit('.', 1)[0], np.zeros(0)).tolist()
    ]


def score_runs(file: Path, runs: dict[str, list[Path]], resamples: int) -> dict:
    """Score all runs, per layer the detections' prefix of each seed, on one annotation file.

    Returns:
        dict: ``ap``: per layer and metric one value per seed; ``difference`` to 'none': per layer
        and metric the mean and its interval; ``images``, ``objects``: how many.
    """
    truth = read_truth(file)
    report: dict = {
        'images': len(truth.getImgIds()),
        'objects': len(truth.getAnnIds(iscrowd=False)),
        'ap': {layer: {} for layer in runs},
        'difference': {layer: {} for layer in runs if layer != 'none'},
    }
    for metric, (kind, thresholds) in METRICS.items():
        found = {
            layer: [read_detections(truth, prefix, kind) for prefix in prefixes]
            for layer, prefixes in runs.items()
        }
        if any(results is None for group in found.values() for results in group):
            continue
        matches = {
            layer: [ImageMatches(truth, results, kind) for results in group]
            for layer, group in found.items()
        }
        for layer, group in matches.items():
            report['ap'][layer][metric] = [run.ap(thresholds) for run in group]
            if layer != 'none' and 1 < len(group) == len(matches.get('none', [])):
                report['difference'][layer][metric] = difference_interval(
                    group, matches['none'], thresholds, resamples
                )
    return report


def tables(name: str, scores: dict) -> str:
    """Return the tables of one annotation file: AP, and differences to 'none'."""
    text = [f'{name}: {scores["images"]} images, {scores["objects"]} objects']
    for title, part, show in (
        ('AP', scores['ap'], mean_and_spread),
        ('minus none', scores['difference'], lambda values: show_interval(*values)),
    ):
        rows = [[layer, *map(show, values.values())] for layer, values in part.items() if values]
        if rows:
            metrics = next(values for values in part.values() if values)
            text.append(markdown([title, *metrics], rows))
    return '\n\n'.join(text)
