"""The official protocol in loops: one detection, one face, one threshold at a time."""

from __future__ import annotations

import math


def iou(box, other):
    """IoU of two x, y, w, h boxes whose sides are one pixel longer than w and h."""
    x1, y1, x2, y2 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    u1, v1, u2, v2 = other[0], other[1], other[0] + other[2], other[1] + other[3]
    width = min(x2, u2) - max(x1, u1) + 1
    height = min(y2, v2) - max(y1, v1) + 1
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    other_area = (u2 - u1 + 1) * (v2 - v1 + 1)
    return overlap / (area + other_area - overlap)


def walk_image(detections, boxes, counted, iou_thr):
    """Go through detections in order: how many faces are found, and is each a proposal."""
    state = ['new'] * len(boxes)
    found, proposal = [], []
    for detection in detections:
        best, best_iou = 0, -1.0
        for number, box in enumerate(boxes):
            overlap = iou(detection, box)
            if overlap > best_iou:
                best, best_iou = number, overlap
        proposes = True
        if best_iou >= iou_thr:
            if not counted[best]:
                state[best], proposes = 'ignored', False
            elif state[best] == 'new':
                state[best] = 'found'
        found.append(state.count('found'))
        proposal.append(proposes)
    return found, proposal


def oracle(predictions, images, counted, iou_thr=0.5, subset=False, file_order=False):
    """AP of one setting.

    Args:
        predictions (dict): name: list of (x, y, w, h, score).
        images (dict): name: list of (x, y, w, h).
        counted (dict): name: list of bool.
        file_order (bool): Go through detections in their order instead of best first.
    """
    every = [row[4] for rows in predictions.values() for row in rows]
    low, high = (min(every), max(every)) if every else (0, 1)
    faces = 0
    proposals, recalled = [0] * 1000, [0] * 1000
    for name, boxes in images.items():
        if subset and name not in predictions:
            continue
        faces += sum(counted[name])
        rows = [
            (*row[:4], (row[4] - low) / (high - low) if high > low else 1.0)
            for row in predictions.get(name, [])
        ]
        if not file_order:
            rows.sort(key=lambda row: -row[4])
        if not rows or not boxes:
            continue
        found, proposal = walk_image(rows, boxes, counted[name], iou_thr)
        for step in range(1000):
            accepted = [n for n, row in enumerate(rows) if row[4] >= 1 - (step + 1) / 1000]
            if accepted:
                last = accepted[-1]
                proposals[step] += sum(proposal[: last + 1])
                recalled[step] += found[last]
    if not faces:
        return math.nan, []
    curve = [(r / faces, r / p if p else 0.0) for r, p in zip(recalled, proposals)]
    # The area, one rise of the recall at a time, under the best precision still to come.
    area, reached = 0.0, 0.0
    for step, (recall, _) in enumerate(curve):
        if recall > reached:
            area += (recall - reached) * max(p for _, p in curve[step:])
            reached = recall
    return area, curve
