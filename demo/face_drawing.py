"""Draw faces, occluders and background clutter.

Faces are drawn at up to four times their size and reduced: faces of 8 pixels still have eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Eyes, nose tip, mouth corners: (u, v) from the centre of the head, relative to its half width and
# half height.
_LANDMARKS = np.array([[-0.4, -0.12], [0.4, -0.12], [0.0, 0.22], [-0.3, 0.56], [0.3, 0.56]])
_LARGEST_PATCH = 1024
_SKINS = np.array([[150, 180, 235], [130, 165, 220], [90, 130, 195], [60, 95, 150], [45, 65, 105]])


@dataclass
class Head:
    """The place and pose of a face.

    Attributes:
        centre (np.ndarray): x, y in pixels, shape (2,).
        half (np.ndarray): Half width and half height of the head before rotation, in pixels.
        tilt (float): In-plane rotation in degrees, clockwise.
        yaw (float): How far the face looks aside, -0.35 to 0.35 of the half width.
    """

    centre: np.ndarray
    half: np.ndarray
    tilt: float = 0.0
    yaw: float = 0.0

    def points(self, uv: np.ndarray) -> np.ndarray:
        """Map coordinates relative to the head, (n, 2), to pixels."""
        angle = np.deg2rad(self.tilt)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return self.centre + (np.asarray(uv) * self.half) @ turn.T

    def features(self, uv: np.ndarray) -> np.ndarray:
        """Like ``points`` for features on the front of the head, which move with ``yaw``."""
        uv = np.array(uv, dtype=float)
        uv[:, 0] += self.yaw * (1 - uv[:, 0] ** 2)
        return self.points(uv)

    def landmarks(self) -> np.ndarray:
        """Return x, y of eyes, nose and mouth corners, left first, in pixels, (5, 2)."""
        return self.features(_LANDMARKS)

    def box(self) -> np.ndarray:
        """Return x1, y1, x2, y2 of the head in pixels."""
        angle = np.deg2rad(self.tilt)
        cos, sin = np.cos(angle) ** 2, np.sin(angle) ** 2
        a, b = self.half**2
        reach = np.sqrt([a * cos + b * sin, a * sin + b * cos])
        return np.concatenate([self.centre - reach, self.centre + reach])


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw clutter without faces, (size, size, 3) uint8 BGR."""
    image = np.zeros((size, size, 3), dtype=np.float32)
    for cells, strength in ((4, 40), (16, 20), (size // 4, 12)):
        coarse = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image + rng.uniform(70, 180, 3), 0, 255).astype(np.uint8)
    for _ in range(rng.integers(6, 16)):
        # Skin-coloured ovals and pairs of dark dots are distractors.
        colour = _some_skin(rng) if rng.random() < 0.4 else rng.uniform(0, 255, 3)
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        half = np.exp(rng.uniform(np.log(4), np.log(size / 5), 2)).astype(int)
        kind = rng.integers(4)
        if kind == 0:
            cv2.ellipse(image, centre, half.tolist(), rng.uniform(0, 180), 0, 360, colour, -1)
        elif kind == 1:
            corners = cv2.boxPoints((centre, (2 * half).tolist(), rng.uniform(0, 180)))
            cv2.fillPoly(image, [corners.astype(np.int32)], colour)
        elif kind == 2:
            end = tuple(int(v) for v in rng.integers(0, size, 2))
            cv2.line(image, centre, end, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
        else:
            other = (centre[0] + 3 * int(half[0]), centre[1])
            for dot in (centre, other):
                cv2.circle(image, dot, int(half[0]) // 2 + 1, (30, 25, 25), -1, cv2.LINE_AA)
    return image


def draw_face(rng: np.random.Generator, image: np.ndarray, head: Head) -> None:
    """Draw a face into an image, (H, W, 3) uint8 BGR."""
    x1, y1 = np.floor(head.box()[:2]).astype(int) - 1
    x2, y2 = np.ceil(head.box()[2:]).astype(int) + 1
    span = max(x2 - x1, y2 - y1)
    scale = int(np.clip(_LARGEST_PATCH // span, 1, 4))
    large = Head((head.centre - (x1, y1)) * scale, head.half * scale, head.tilt, head.yaw)
    shape = ((y2 - y1) * scale, (x2 - x1) * scale)
    patch = np.zeros((*shape, 3), dtype=np.uint8)
    mask = np.zeros(shape, dtype=np.uint8)
    _oval(mask, large, (0, 0), (1, 1), 255)
    _draw_features(rng, patch, large)
    light = 1 + rng.uniform(-0.25, 0.25) * np.linspace(-1, 1, shape[1])[None, :, None]
    patch = np.clip(patch * (light * rng.uniform(0.75, 1.1)), 0, 255).astype(np.uint8)
    reduced = (int(x2 - x1), int(y2 - y1))
    patch = cv2.resize(patch, reduced, interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = cv2.resize(mask, reduced, interpolation=cv2.INTER_AREA)[..., None] / 255.0
    height, width = image.shape[:2]
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    inside = np.s_[top - y1 : bottom - y1, left - x1 : right - x1]
    region = image[top:bottom, left:right]
    region[:] = np.round(region * (1 - alpha[inside]) + patch[inside] * alpha[inside])


def cover_face(rng: np.random.Generator, image: np.ndarray, head: Head, part: float) -> np.ndarray:
    """Cover one side of a face.

    Args:
        rng (np.random.Generator): Source of all randomness.
        image (np.ndarray): (H, W, 3) uint8, changed in place.
        head (Head): The face.
        part (float): Covered share of the box, 0 to 1.

    Returns:
        np.ndarray: (5,) bool, the covered landmarks.
    """
    x1, y1, x2, y2 = head.box()
    width, height = (x2 - x1) * part, (y2 - y1) * part
    # From the left, right, top or bottom; one pixel larger than the box elsewhere.
    x1, y1, x2, y2 = [
        (x1 - 1, y1 - 1, x1 + width, y2 + 1),
        (x2 - width, y1 - 1, x2 + 1, y2 + 1),
        (x1 - 1, y1 - 1, x2 + 1, y1 + height),
        (x1 - 1, y2 - height, x2 + 1, y2 + 1),
    ][rng.integers(4)]
    low = np.maximum(np.round([x1, y1]), 0).astype(int)
    high = np.minimum(np.round([x2, y2]), image.shape[1::-1]).astype(int)
    region = image[low[1] : high[1], low[0] : high[0]]
    texture = rng.uniform(0, 255, 3) + rng.normal(0, 15, (1, region.shape[1], 3))
    region[:] = np.clip(texture, 0, 255)
    marks = head.landmarks()
    return ((marks >= low) & (marks < high)).all(axis=1)


def blur_face(rng: np.random.Generator, image: np.ndarray, head: Head) -> None:
    """Blur and darken a face beyond recognition."""
    x1, y1, x2, y2 = np.round(head.box()).astype(int)
    region = image[max(y1, 0) : y2, max(x1, 0) : x2]
    sigma = float(head.half.min()) * 0.45
    region[:] = cv2.GaussianBlur(region, (0, 0), sigma) * rng.uniform(0.6, 0.9)


def _draw_features(rng: np.random.Generator, patch: np.ndarray, head: Head) -> None:
    """Fill a patch with skin, hair, eyes, brows, nose and mouth."""
    skin = _some_skin(rng)
    dark = skin * 0.6
    hair = np.array([40, 55, 70]) * rng.uniform(0.2, 2.2) + rng.uniform(0, 30, 3)
    patch[:] = hair.astype(np.uint8)
    unit = float(head.half[0])
    _oval(patch, head, (0, rng.uniform(0.12, 0.2)), (0.93, 0.92), skin)
    left_eye, right_eye, nose, left_mouth, right_mouth = head.landmarks()
    opening = rng.uniform(0.6, 1.0)
    for eye in (left_eye, right_eye):
        half = (unit * 0.2, unit * 0.13 * opening)
        _ellipse(patch, eye, half, head.tilt, (235, 240, 240))
        _ellipse(patch, eye, (unit * 0.1, unit * 0.12 * opening), head.tilt, (35, 25, 20))
    brow = rng.uniform(-0.36, -0.3)
    for side in (-1, 1):
        ends = head.features([[side * 0.62, brow], [side * 0.2, brow - 0.03]])
        _line(patch, ends, hair * 0.8, unit * 0.1)
    _line(patch, np.stack([head.features([[0.02, -0.1]])[0], nose]), dark, unit * 0.07)
    _ellipse(patch, nose, (unit * 0.14, unit * 0.08), head.tilt, dark)
    bend = rng.uniform(-0.02, 0.14)
    middle = head.features([[0, 0.56 + bend]])[0]
    lips = np.array([70, 60, 160]) * rng.uniform(0.6, 1.2)
    _line(patch, np.stack([left_mouth, middle, right_mouth]), lips, unit * rng.uniform(0.09, 0.16))
    if rng.random() < 0.15:
        frame = (unit * 0.3, unit * 0.26)
        for eye in (left_eye, right_eye):
            _ellipse(patch, eye, frame, head.tilt, (25, 25, 25), max(1, round(unit * 0.06)))
        _line(patch, head.features([[-0.12, -0.12], [0.12, -0.12]]), (25, 25, 25), unit * 0.06)


def _some_skin(rng: np.random.Generator) -> np.ndarray:
    """Interpolate a skin colour, BGR."""
    at = rng.uniform(0, len(_SKINS) - 1)
    low = int(at)
    skin = _SKINS[low] + (at - low) * (_SKINS[min(low + 1, len(_SKINS) - 1)] - _SKINS[low])
    return np.clip(skin + rng.normal(0, 8, 3), 0, 255)


def _oval(image: np.ndarray, head: Head, centre: tuple, half: tuple, colour: object) -> None:
    """Fill an oval of the head's shape, in coordinates relative to it."""
    _ellipse(image, head.points([centre])[0], head.half * half, head.tilt, colour)


def _ellipse(
    image: np.ndarray, centre: object, half: object, tilt: float, colour: object, thick: int = -1
) -> None:
    size = (2 * float(half[0]), 2 * float(half[1]))
    colour = colour if np.isscalar(colour) else tuple(float(c) for c in colour)
    cv2.ellipse(image, ((float(centre[0]), float(centre[1])), size, tilt), colour, thick)


def _line(image: np.ndarray, points: np.ndarray, colour: object, thickness: float) -> None:
    points = np.round(points).astype(np.int32)
    colour = tuple(float(c) for c in colour)
    cv2.polylines(image, [points], False, colour, max(1, round(thickness)))
