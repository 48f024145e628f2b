"""Test images side by side: the annotation, and what each detector finds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO

from studies.real_images.tables import KINDS, Part, read_detections, read_truth

SIDE = 320  # pixels of a tile
LEAST_SCORE = 0.3
COLOUR = (60, 220, 60)


def draw_montage(part: Part, runs: dict[str, dict[int, Path]], out: Path, count: int = 6) -> None:
    """Draw a row an image: annotation, then the first seed of each layer.

    Args:
        part (Part): The images.
        runs (dict[str, dict[int, Path]]): For each layer and seed, what the names of its stored
            detections begin with.
        out (Path): The file to write.
        count (int): Images, spread evenly over the part. Defaults to 6.
    """
    truth = read_truth(part)
    columns = {'annotation': truth.dataset['annotations']}
    for layer, prefixes in runs.items():
        if prefixes:
            prefix = prefixes[min(prefixes)]
            found = read_detections(part, prefix, truth, KINDS[part.task][-1])
            columns[layer] = [d for d in found if d['score'] >= LEAST_SCORE]
    images = truth.dataset['images']
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, count).round().astype(int)]
    rows = [
        np.hstack([_tile(part, truth, image, name, columns[name]) for name in columns])
        for image in chosen
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), np.vstack(rows))


def _tile(part: Part, truth: COCO, image: dict, name: str, objects: list[dict]) -> np.ndarray:
    pixels = cv2.imread(str(part.images / image['file_name']))
    for found in objects:
        if found['image_id'] != image['id']:
            continue
        if 'segmentation' in found:
            annotated = 'iscrowd' in found
            area = truth.annToMask(found) if annotated else masks.decode(found['segmentation'])
            pixels[area > 0] = pixels[area > 0] // 2 + np.array(COLOUR, np.uint8) // 2
            edges = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
            cv2.drawContours(pixels, edges, -1, COLOUR, 2)
        else:
            x, y, width, height = (round(number) for number in found['bbox'])
            cv2.rectangle(pixels, (x, y), (x + width, y + height), COLOUR, 2)
    scale = SIDE / max(pixels.shape[:2])
    pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    below, beside = SIDE - pixels.shape[0], SIDE - pixels.shape[1]
    pixels = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_CONSTANT)
    return cv2.putText(pixels, name, (6, SIDE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * 3, 2)
