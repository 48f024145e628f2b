"""The official evaluation ground truth of WIDER FACE: four ``.mat`` files.

``wider_face_val.mat`` lists events, images and boxes; ``wider_{easy,medium,hard}_val.mat`` list,
for each image, which of its boxes (from 1) the setting counts. All others are ignored there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.io import loadmat

SETTINGS = ('easy', 'medium', 'hard')


@dataclass
class WiderFaceGroundTruth:
    """The boxes of P images, and which of these G boxes each setting counts.

    Image i has the boxes from ``starts[i]`` to ``starts[i + 1]``.
    """

    images: list[str]  # EVENT/NAME of each image, without ending
    starts: np.ndarray  # (P + 1,) int64
    boxes: np.ndarray  # (G, 4) float64: x, y, width, height in pixels
    counted: dict[str, np.ndarray]  # for each of SETTINGS (G,) bool

    @cached_property
    def index(self) -> dict[str, int]:
        """dict[str, int]: Number of each image by its ``EVENT/NAME``."""
        return {name: number for number, name in enumerate(self.images)}


def ground_truth_files(gt_dir: str | Path) -> dict[str, Path]:
    """Return the paths of the four files by 'face', 'easy', 'medium' and 'hard'."""
    return {name: Path(gt_dir) / f'wider_{name}_val.mat' for name in ('face', *SETTINGS)}


def read_ground_truth(gt_dir: str | Path) -> WiderFaceGroundTruth:
    """Read the four official files of a folder.

    Raises:
        ValueError: If a file is missing, damaged, or not as the official ones are.
    """
    files = ground_truth_files(gt_dir)
    face = _load(files['face'], 'event_list', 'file_list', 'face_bbx_list')
    images: list[str] = []
    boxes: list[np.ndarray] = []
    try:
        for event, names, event_boxes in zip(*(lists.ravel() for lists in face)):
            images += [f'{event.item()}/{name.item()}' for name in names.ravel()]
            boxes += [cell.reshape(-1, 4) for cell in event_boxes.ravel()]
        starts = np.cumsum([0] + [len(cell) for cell in boxes], dtype=np.int64)
        table = np.concatenate(boxes).astype(np.float64)
    except (AttributeError, TypeError, ValueError) as error:
        raise _not_official(files['face'], str(error)) from None
    if len(boxes) != len(images):
        raise _not_official(files['face'], f'{len(images)} names, {len(boxes)} lists of boxes')
    counted = {name: _read_counted(files[name], starts) for name in SETTINGS}
    return WiderFaceGroundTruth(images, starts, table, counted)


def _read_counted(path: Path, starts: np.ndarray) -> np.ndarray:
    """Read which boxes one setting counts: bool, shape (G,)."""
    (lists,) = _load(path, 'gt_list')
    faces = np.diff(starts)
    try:
        cells = [cell.ravel() for event in lists.ravel() for cell in event.ravel()]
        numbers = np.concatenate([*cells, []]).astype(np.int64)
    except (AttributeError, TypeError, ValueError) as error:
        raise _not_official(path, str(error)) from None
    if len(cells) != len(faces):
        raise _not_official(path, f'{len(cells)} images, expected the {len(faces)} of the boxes')
    sizes = [len(cell) for cell in cells]
    if ((numbers < 1) | (numbers > np.repeat(faces, sizes))).any():
        raise _not_official(path, 'an image counts a face that it does not have')
    counted = np.zeros(starts[-1], dtype=bool)
    counted[np.repeat(starts[:-1], sizes) + numbers - 1] = True
    return counted


def _not_official(path: Path, reason: str) -> ValueError:
    return ValueError(f'{path}: not an official ground-truth file of WIDER FACE ({reason})')


def _load(path: Path, *keys: str) -> list[np.ndarray]:
    """Read lists of a .mat file: arrays of objects."""
    if not path.is_file():
        raise ValueError(f'{path}: no such file')
    try:
        content = loadmat(path, variable_names=keys)
    except Exception as error:  # SciPy raises anything at a damaged file.
        raise _not_official(path, f'{type(error).__name__}: {error}') from None
    for key in keys:
        if content.get(key, np.zeros(0)).dtype != object:
            raise _not_official(path, f'no list "{key}"')
    return [content[key] for key in keys]
