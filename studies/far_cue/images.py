"""Drawn images in COCO format in which something far away decides every mask's class.

White discs and squares lie on one side of an image, a red or blue triangle on the other. The
triangle's colour is the class of all others, their shape is not; the triangle itself has no
annotation. A detector whose features reach less far than MIN_DISTANCE finds and outlines the shapes
but can only guess their class. Every image depends on (seed, split, index) alone.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo.files import drawn_folder, write_coco

CLASSES = ('red', 'blue')
COLOURS = {'red': (40, 40, 220), 'blue': (220, 60, 40)}  # BGR
WIDTH, HEIGHT = 256, 128  # Pixels.
MARGIN = 4
# The shapes lie within this width at one end, the cue within CUE_WIDTH at the other.
SHAPES_WIDTH, CUE_WIDTH = 108, 32
MIN_DISTANCE = WIDTH - SHAPES_WIDTH - CUE_WIDTH  # From any shape to the cue, in pixels.


def make_far_cue(out: str | Path, train: int, val: int, seed: int = 0) -> None:
    """Write images and annotations in COCO's format, as ``make_toy_coco`` does."""
    out = Path(out)
    with drawn_folder(out, train=train, val=val, seed=seed):
        write_coco(out, (train, val), seed, CLASSES, draw_image)


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw two to four shapes and the cue; return the image, and label and mask of each shape."""
    label = int(rng.integers(len(CLASSES)))
    image = np.full((HEIGHT, WIDTH, 3), rng.uniform(70, 110), np.float64)
    masks: list[np.ndarray] = []
    taken = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted = int(rng.integers(2, 5))
    while len(masks) < wanted:
        mask = _shape(rng)
        # A little room between them: a disc and a square that touch are one thing.
        if not (cv2.dilate(mask, np.ones((5, 5), np.uint8)) & taken).any():
            masks.append(mask)
            taken |= mask
    image[taken > 0] = rng.uniform(200, 240)
    cue = _triangle(rng)
    image[cue > 0] = COLOURS[CLASSES[label]]
    image += rng.normal(0, 6, image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:  # The cue left, the shapes right.
        image = np.ascontiguousarray(image[:, ::-1])
        masks = [np.ascontiguousarray(mask[:, ::-1]) for mask in masks]
    return image, [(label, mask) for mask in masks]


def _shape(rng: np.random.Generator) -> np.ndarray:
    """Draw a disc or an upright square at the left end, (HEIGHT, WIDTH) uint8."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    half = int(rng.integers(8, 17))
    x = int(rng.integers(MARGIN + half, SHAPES_WIDTH - half))
    y = int(rng.integers(MARGIN + half, HEIGHT - MARGIN - half))
    if rng.random() < 0.5:
        cv2.circle(mask, (x, y), half - 1, 1, -1)
    else:
        mask[y - half : y + half, x - half : x + half] = 1
    return mask


def _triangle(rng: np.random.Generator) -> np.ndarray:
    """Draw the cue at the right end, (HEIGHT, WIDTH) uint8."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    half = 12
    x = int(rng.integers(WIDTH - CUE_WIDTH + half, WIDTH - half))
    y = int(rng.integers(half, HEIGHT - half))
    corners = np.array([[x, y - half], [x - half, y + half], [x + half, y + half]], np.int32)
    cv2.fillPoly(mask, [corners], 1)
    return mask
