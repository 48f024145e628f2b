"""Drawn images of overlapping shapes in COCO's format.

Each image depends on (seed, split, index) only, not on the machine or the number of images.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo.files import drawn_folder, write_coco

CLASSES = ('circle', 'rectangle', 'triangle', 'cross')
# Each class has its own hues (OpenCV's 0 to 179, +- 12), to train in a few minutes.
HUES = (0, 60, 25, 115)
MIN_SIDE = 8  # Pixels: the smallest drawn shape.
MIN_VISIBLE = 0.4  # Share of a shape that later shapes leave visible.
MIN_CONTRAST = 70  # Distance from a shape's colour to the background's (BGR).


def make_toy_coco(out: str | Path, train: int, val: int, seed: int = 0, size: int = 160) -> None:
    """Write ``out/{train,val}/*.jpg`` and ``out/annotations/instances_{train,val}.json``.

    Args:
        out (str or Path): Folder to write, new or drawn before.
        train (int): Number of training images.
        val (int): Number of validation images.
        seed (int): Not negative. Defaults to 0.
        size (int): Side of the square images in pixels, at least 64. Defaults to 160.

    Raises:
        InputError: A number is out of range, or ``out`` holds other files.
    """
    out = Path(out)
    with drawn_folder(out, train=train, val=val, seed=seed, size=size):
        write_coco(out, (train, val), seed, CLASSES, lambda rng: draw_image(rng, size))


def draw_image(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw up to 8 shapes, later ones on top, on a textured background.

    Args:
        rng (np.random.Generator): Source of all randomness.
        size (int): Side in pixels.

    Returns:
        tuple: The image, (size, size, 3) uint8 BGR, and per shape its index in CLASSES and its
        visible mask, (size, size) bool.
    """
    image = _texture(rng, size, contrast=25.0) + rng.uniform(60, 190, 3)
    shapes: list[tuple[int, np.ndarray]] = []
    areas: list[int] = []
    for _ in range(rng.integers(3, 9)):
        label = int(rng.integers(len(CLASSES)))
        mask = _shape_mask(rng, label, size)
        visible = [(other, seen & ~mask) for other, seen in shapes]
        if any(seen.sum() < MIN_VISIBLE * area for (_, seen), area in zip(visible, areas)):
            continue
        colour = _colour(rng, label, image[mask].mean(axis=0)) + _texture(rng, size, contrast=12.0)
        image[mask] = colour[mask]
        shapes = [*visible, (label, mask)]
        areas.append(int(mask.sum()))
    image = cv2.GaussianBlur(image, (3, 3), 0) + rng.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), shapes


def _colour(rng: np.random.Generator, label: int, background: np.ndarray) -> np.ndarray:
    """Choose a colour of the class, (3,) BGR, that contrasts with the background."""
    while True:
        hue = (HUES[label] + rng.uniform(-12, 12)) % 180
        hsv = np.array([[[hue, rng.uniform(90, 255), rng.uniform(60, 255)]]], np.uint8)
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(float)
        if np.linalg.norm(colour - background) >= MIN_CONTRAST:
            return colour


def _texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Draw smooth noise of two scales and mean 0, (size, size, 3)."""
    noise = np.zeros((size, size, 3))
    for cells in (4, 24):
        coarse = rng.normal(0, contrast / 2, (cells, cells, 3))
        noise += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return noise


def _shape_mask(rng: np.random.Generator, label: int, size: int) -> np.ndarray:
    """Draw a shape at a random place, angle and (log-uniform) size, (size, size) bool."""
    half = np.exp(rng.uniform(np.log(MIN_SIDE), np.log(0.6 * size))) / 2
    aspect = np.exp(rng.uniform(-0.4, 0.4))
    centre = rng.uniform(half * 0.7, size - half * 0.7, 2)
    unit = _outline(CLASSES[label]) * half
    if CLASSES[label] != 'circle':
        unit = unit * (aspect, 1 / aspect)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.round(unit @ turn.T + centre).astype(np.int32)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [points], 1)
    return mask.astype(bool)


def _outline(name: str) -> np.ndarray:
    """Return the corners of a shape inside [-1, 1]^2, (n, 2)."""
    if name == 'circle':
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if name == 'rectangle':
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.85
    if name == 'triangle':
        return np.array([[0, -1], [0.95, 0.8], [-0.95, 0.8]])
    quarter = np.array([[0.32, -0.32], [0.32, -1], [-0.32, -1]])
    turn = np.array([[0, -1], [1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)])
