"""Average precision by the official protocol of WIDER FACE.

Yang et al., "WIDER FACE: A Face Detection Benchmark", CVPR 2016, arXiv 1511.06523, and the rules of
its MATLAB evaluation tools in their present version:

- Scores are mapped to [0, 1] by the smallest and largest score of the whole set.
- Every detection goes to the box of its image that it overlaps most (the first of several), if
  their IoU is at least the threshold. A box from x, y, w, h ends at x + w, and is one pixel longer
  than that in both directions when areas are taken.
- A setting counts some boxes and ignores the others. A detection on an ignored box is no proposal;
  every other detection is, also a second one on the same box. A counted box is found once the best
  of its detections is accepted.
- Precision and recall are taken at 1,000 thresholds, 0.999, 0.998, ..., 0. AP is the area under the
  curve after precision is made monotone, as in PASCAL VOC.
- An image without any box gives no proposals.

The tools sort a file's detections by score when they read it, so a threshold accepts all that pass
it: the result depends on neither the order of detections nor on ties. The widespread Python port
keeps the order of the file, and accepts whatever stands before the last detection that passes
(``file_order``). Where the programs divide zero by zero we decide: if all scores are equal they
count as 1; precision without proposals is 0; AP without counted boxes is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from polynl_mmdet.wider_face.ground_truth import SETTINGS, WiderFaceGroundTruth

THRESHOLDS = 1 - np.arange(1, 1001) / 1000
_PAIRS_PER_BLOCK = 1 << 17


@dataclass
class WiderFaceScores:
    """The result of one evaluation.

    ``ap`` and ``curves`` have a value for each of ``SETTINGS``.
    """

    ap: dict[str, float]
    curves: dict[str, np.ndarray]  # (1000, 2): recall and precision at each of THRESHOLDS
    missing: int  # images of the ground truth that have no predictions
    unmatched: list[str]  # predictions whose image is not in the ground truth


def score_wider_face(
    predictions: Mapping[str, np.ndarray],
    ground_truth: WiderFaceGroundTruth,
    iou_thr: float = 0.5,
    subset: bool = False,
    file_order: bool = False,
) -> WiderFaceScores:
    """Score detections by the official protocol.

    Args:
        predictions (Mapping[str, np.ndarray]): For each ``EVENT/NAME``, shape (n, 5): x, y, width,
            height in pixels and score, in any order.
        ground_truth (WiderFaceGroundTruth): The official ground truth.
        iou_thr (float): Smallest IoU of a detection with its face. Defaults to 0.5.
        subset (bool): Count only the faces of images that have an entry in ``predictions``.
            Otherwise images without an entry have no detections. Defaults to False.
        file_order (bool): Take detections in the given order, as the Python port of the tools does.
            Defaults to False.

    Raises:
        ValueError: If ``iou_thr`` is not in (0, 1], or no prediction matches an image.
    """
    if not 0 < iou_thr <= 1:
        raise ValueError(f'iou_thr: got {iou_thr}, expected more than 0, up to 1')
    index, starts = ground_truth.index, ground_truth.starts
    unmatched = [name for name in predictions if name not in index]
    tested = {
        index[name]: np.asarray(rows, dtype=np.float64).reshape(-1, 5)
        for name, rows in predictions.items()
        if name in index
    }
    if not tested:
        raise ValueError(
            f'none of {len(unmatched)} predictions is for an image of the ground truth; '
            f'got {next(iter(predictions), None)!r}, expected EVENT/NAME such as '
            f'{next(iter(index), None)!r}'
        )
    truth = _corners(ground_truth.boxes)
    steps = _first_threshold(np.concatenate([rows[:, 4] for rows in tested.values()]))
    if file_order:
        parts = np.split(steps, np.cumsum([len(rows) for rows in tested.values()])[:-1])
        steps = np.concatenate([np.minimum.accumulate(part[::-1])[::-1] for part in parts])
    matches = (
        _match(_corners(rows), truth, starts[image], starts[image + 1], iou_thr)
        for image, rows in tested.items()
    )
    match = np.concatenate(list(matches))
    found_at = np.full(len(truth), len(THRESHOLDS))
    matched = match >= 0
    np.minimum.at(found_at, match[matched], steps[matched])
    in_test = np.ones(len(truth), dtype=bool)
    if subset:
        in_test = np.isin(np.arange(len(index)), list(tested))
        in_test = np.repeat(in_test, np.diff(starts))
    # Images without a box give no proposals: their detections are marked -2.
    proposes = match > -2
    ap, curves = {}, {}
    for setting in SETTINGS:
        counted = ground_truth.counted[setting]
        accepted = proposes.copy()
        accepted[matched] = counted[match[matched]]
        proposals = _accumulate(steps[accepted])
        found = _accumulate(found_at[counted])
        faces = int((counted & in_test).sum())
        precision = found / np.maximum(proposals, 1)
        recall = found / faces if faces else np.full(len(found), np.nan)
        ap[setting] = average_precision(recall, precision) if faces else float('nan')
        curves[setting] = np.stack([recall, precision], axis=1)
    return WiderFaceScores(ap, curves, len(index) - len(tested), unmatched)


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Compute the area under the curve, precision made monotone (PASCAL VOC, all points)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    rises = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[rises + 1] - recall[rises]) * envelope[rises + 1]))


def _accumulate(steps: np.ndarray) -> np.ndarray:
    """Count the steps, out of 0 to 1000, that are at most 0, 1, ..., 999: int64, shape (1000,)."""
    return np.cumsum(np.bincount(steps, minlength=len(THRESHOLDS) + 1)[: len(THRESHOLDS)])


def _first_threshold(score: np.ndarray) -> np.ndarray:
    """Find the first threshold that each score passes, after it is mapped to [0, 1]."""
    low, high = score.min(initial=np.inf), score.max(initial=-np.inf)
    score = (score - low) / (high - low) if high > low else np.ones_like(score)
    return len(THRESHOLDS) - np.searchsorted(THRESHOLDS[::-1], score, side='right')


def _match(
    detections: np.ndarray, truth: np.ndarray, first: int, last: int, iou_thr: float
) -> np.ndarray:
    """Find the row of ``truth[first:last]`` of each detection; -1: none, -2: there are no rows."""
    if first == last:
        return np.full(len(detections), -2)
    match = np.full(len(detections), -1)
    step = max(1, _PAIRS_PER_BLOCK // (last - first))
    for begin in range(0, len(detections), step):
        iou = box_iou(detections[begin : begin + step], truth[first:last])
        near = iou.max(axis=1) >= iou_thr
        match[begin : begin + step][near] = first + iou.argmax(axis=1)[near]
    return match


def _corners(rows: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2, shape (n, 4), of rows that start with x, y, width, height."""
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the IoU (n, m) of boxes x1, y1, x2, y2; a side is x2 - x1 + 1 long."""
    overlap = np.ones(1)
    for low in (0, 1):
        side = np.minimum(boxes[:, None, low + 2], others[:, low + 2])
        side -= np.maximum(boxes[:, None, low], others[:, low])
        side += 1
        overlap = overlap * np.maximum(side, 0, out=side)
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    other = (others[:, 2] - others[:, 0] + 1) * (others[:, 3] - others[:, 1] + 1)
    union = area[:, None] + other
    union -= overlap
    overlap /= union
    return overlap
