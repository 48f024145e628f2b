"""Drawn images of faces in WIDER FACE's layout and formats.

Each image depends on (seed, split, index) only, not on the machine or the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from demo.face_drawing import Head, blur_face, cover_face, draw_background, draw_face
from demo.files import SPLITS, drawn_folder, empty_folder, progress, write_jpeg
from demo.wider_files import write_annotations, write_ground_truth
from polynl_mmdet.wider_face import WiderFaceGroundTruth
from polynl_mmdet.wider_face.annotations import FaceAnnotations

EVENTS = ('0--Portrait', '1--Group', '2--Crowd')
MIN_HEIGHT = 8  # Pixels: the smallest face.
WITH_LANDMARKS = 12  # Pixels: smaller faces have no landmarks in the annotation.
# Min height in pixels and max occlusion (0 none, 1 partial, 2 heavy) of each setting.
SETTINGS = {'easy': (32, 0), 'medium': (16, 1), 'hard': (MIN_HEIGHT, 2)}
# Per event: min and max number of faces, min and max height relative to the image's side.
_FACES = {
    '0--Portrait': (1, 2, 0.35, 0.6),
    '1--Group': (2, 6, 0.12, 0.3),
    '2--Crowd': (6, 16, 0, 0.14),
}


@dataclass
class ToyImage:
    """A drawn image and its annotation.

    Attributes:
        name (str): ``EVENT/NAME.jpg``.
        image (np.ndarray): uint8, shape (size, size, 3), BGR.
        official (list): Per face x, y, w, h and the six official attributes.
        landmarks (list): Per face 15 numbers: x, y, flag of five landmarks.
    """

    name: str
    image: np.ndarray
    official: list[list[int]] = field(default_factory=list)
    landmarks: list[list[float]] = field(default_factory=list)


def make_toy_wider(out: str | Path, train: int, val: int, seed: int = 0, size: int = 256) -> None:
    """Write drawn images and annotations in WIDER FACE's layout.

    - ``WIDER_{train,val}/images/EVENT/*.jpg``
    - ``wider_face_split/wider_face_{train,val}_bbx_gt.txt``
    - ``retinaface_gt_v1.1/{train,val}/label.txt``, with landmarks
    - ``eval_tools/ground_truth/wider_{face,easy,medium,hard}_val.mat``

    About one image in 20 has no face. Some faces are partly covered. Some are blurred beyond
    recognition: they are flagged invalid in the official files and absent from label.txt. Faces
    under 12 pixels have no landmarks.

    Args:
        out (str or Path): Folder to write, new or drawn before.
        train (int): Number of training images.
        val (int): Number of validation images.
        seed (int): Not negative. Defaults to 0.
        size (int): Side of the square images in pixels, at least 64. Defaults to 256.

    Raises:
        InputError: A number is out of range, or ``out`` holds other files.
    """
    out = Path(out)
    with drawn_folder(out, train=train, val=val, seed=seed, size=size):
        for split, count in zip(SPLITS, (train, val)):
            images = _write_images(out / f'WIDER_{split}' / 'images', split, count, seed, size)
            _write_annotations(out, split, images)


def draw_image(seed: int, split: str, index: int, size: int) -> ToyImage:
    """Draw one image.

    Args:
        seed (int): Seed of the data set.
        split (str): One of ``SPLITS``.
        index (int): Number of the image in its split.
        size (int): Side in pixels.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    event = EVENTS[index % len(EVENTS)]
    number, title = event.split('--')
    image = ToyImage(
        f'{event}/{number}_{title}_{title}_{number}_{index}.jpg', draw_background(rng, size)
    )
    min_count, max_count, low, high = _FACES[event]
    count = 0 if rng.random() < 0.05 else rng.integers(min_count, max_count + 1)
    taken: list[np.ndarray] = []
    for _ in range(count):
        head = _place_head(rng, size, max(low * size, MIN_HEIGHT), max(high * size, 12), taken)
        if head is not None:
            taken.append(head.box())
            _add_face(rng, image, head)
    noisy = image.image + rng.normal(0, 3, image.image.shape)
    image.image = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    return image


def _place_head(
    rng: np.random.Generator, size: int, low: float, high: float, taken: list[np.ndarray]
) -> Head | None:
    """Place a head of ``low`` to ``high`` pixels that touches no other, or return None."""
    for _ in range(30):
        height = np.exp(rng.uniform(np.log(low), np.log(high)))
        half = np.array([height / rng.uniform(1.2, 1.45), height]) / 2
        head = Head(
            rng.uniform(half[1] + 2, size - half[1] - 2, 2),
            half,
            rng.uniform(-20, 20),
            rng.uniform(-0.3, 0.3),
        )
        box = head.box()
        if all(
            (box[:2] > other[2:] + 3).any() or (box[2:] < other[:2] - 3).any() for other in taken
        ):
            return head
    return None


def _add_face(rng: np.random.Generator, image: ToyImage, head: Head) -> None:
    """Draw a face and add its annotation."""
    draw_face(rng, image.image, head)
    covered = np.zeros(5, dtype=bool)
    occlusion = int(rng.choice(3, p=(0.75, 0.15, 0.1)))
    if occlusion:
        part = rng.uniform(0.2, 0.3) if occlusion == 1 else rng.uniform(0.4, 0.55)
        covered = cover_face(rng, image.image, head, part)
    invalid = rng.random() < 0.06
    if invalid:
        blur_face(rng, image.image, head)
    x1, y1, x2, y2 = np.round(head.box()).astype(int).tolist()
    image.official.append(
        [x1, y1, x2 - x1, max(y2 - y1, MIN_HEIGHT), 2 * invalid, 0, 0, int(invalid), occlusion]
        + [int(abs(head.yaw) > 0.25)]
    )
    if y2 - y1 < WITH_LANDMARKS:
        image.landmarks.append([-1.0] * 15)
    else:
        marks = np.concatenate([np.round(head.landmarks(), 3), covered[:, None]], axis=1)
        image.landmarks.append(marks.ravel().tolist())


def _write_images(folder: Path, split: str, count: int, seed: int, size: int) -> list[ToyImage]:
    """Draw and write a split's images; return their annotations sorted by event."""
    for event in EVENTS:
        empty_folder(folder / event)
    images = []
    for index in progress(count, split):
        image = draw_image(seed, split, index, size)
        write_jpeg(folder / image.name, image.image)
        image.image = None
        images.append(image)
    return sorted(images, key=lambda image: EVENTS.index(image.name.split('/')[0]))


def _write_annotations(out: Path, split: str, images: list[ToyImage]) -> None:
    names = [image.name for image in images]
    starts = np.cumsum([0] + [len(image.official) for image in images])
    lines = np.zeros(len(names), dtype=np.int64)
    official = np.array([row for p in images for row in p.official], dtype=float).reshape(-1, 10)
    marks = np.array([row for p in images for row in p.landmarks], dtype=float).reshape(-1, 15)
    height, invalid, occlusion = official[:, [3, 7, 8]].T
    # label.txt ends each row with a blur score.
    label = np.concatenate([official[:, :4], marks, np.full((len(marks), 1), 0.9)], axis=1)
    valid = invalid == 0
    label_starts = np.concatenate([[0], np.cumsum(valid)])[starts]
    (out / 'wider_face_split').mkdir(exist_ok=True)
    write_annotations(
        out / 'wider_face_split' / f'wider_face_{split}_bbx_gt.txt',
        FaceAnnotations('bbx_gt', names, starts, official, lines),
    )
    folder = out / 'retinaface_gt_v1.1' / split
    folder.mkdir(parents=True, exist_ok=True)
    write_annotations(
        folder / 'label.txt', FaceAnnotations('label', names, label_starts, label[valid], lines)
    )
    if split == 'val':
        counted = {
            setting: (height >= lowest) & (occlusion <= heaviest) & valid
            for setting, (lowest, heaviest) in SETTINGS.items()
        }
        stems = [name[: -len('.jpg')] for name in names]
        boxes = official[:, :4].astype(np.int32)
        truth = WiderFaceGroundTruth(stems, starts, boxes, counted)
        write_ground_truth(out / 'eval_tools' / 'ground_truth', truth)
