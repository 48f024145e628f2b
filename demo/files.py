"""Write drawn data sets: folders, images, annotations in COCO's format."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from polynl_mmdet.errors import InputError

SPLITS = ('train', 'val')


@contextmanager
def drawn_folder(out: Path, **settings: int) -> Iterator[None]:
    """Mark a folder as drawn: ``drawn.json`` gets the settings once everything is written.

    Raises:
        InputError: The folder holds something else, or a setting is out of range.
    """
    for name, value in settings.items():
        if value < (least := {'seed': 0, 'size': 64}.get(name, 1)):
            raise InputError(f'--{name}: got {value}, expected {least} or more')
    marker = out / 'drawn.json'
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise InputError(f'{out}: got a folder with other files, expected a new or drawn one')
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text('')
    yield
    marker.write_text(json.dumps(settings))


def is_drawn(out: Path, **settings: int) -> bool:
    """Whether a folder has been drawn completely with these settings."""
    marker = out / 'drawn.json'
    return marker.exists() and marker.read_text() == json.dumps(settings)


def empty_folder(folder: Path) -> None:
    """Make a folder, or remove the images of an earlier data set from it."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob('*.jpg'):
        stale.unlink()


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write a BGR image, uint8, (H, W, 3)."""
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def progress(count: int, split: str) -> tqdm:
    """Range over a split's images, with a progress bar."""
    return tqdm(
        range(count),
        desc=f'drawing {split:5}',
        mininterval=0.5 if sys.stderr.isatty() else 30,
        bar_format='{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt}, '
        'elapsed {elapsed}, ETA {remaining}',
    )


def write_coco(
    out: Path,
    counts: Sequence[int],
    seed: int,
    classes: Sequence[str],
    draw: Callable[[np.random.Generator], tuple[np.ndarray, list[tuple[int, np.ndarray]]]],
) -> None:
    """Write ``out/{train,val}/*.jpg`` and ``out/annotations/instances_{train,val}.json``.

    Args:
        out (Path): The data set's folder.
        counts (Sequence[int]): Images of each of ``SPLITS``.
        seed (int): Each image's generator is seeded with this, its split and its index.
        classes (Sequence[str]): Names of the categories 1, 2, ...
        draw (Callable): Draws a BGR image and, per object, its class index and mask (H, W), bool
            or 0 and 1.
    """
    (out / 'annotations').mkdir(exist_ok=True)
    for number, (split, count) in enumerate(zip(SPLITS, counts)):
        empty_folder(out / split)
        images, annotations = [], []
        for index in progress(count, split):
            image, objects = draw(np.random.default_rng((seed, number, index)))
            name = f'{index:06d}.jpg'
            write_jpeg(out / split / name, image)
            height, width = image.shape[:2]
            images.append({'id': index, 'file_name': name, 'height': height, 'width': width})
            for label, mask in objects:
                rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': index,
                        'category_id': label + 1,
                        'bbox': [float(v) for v in coco_mask.toBbox(rle)],
                        'area': float(coco_mask.area(rle)),
                        'iscrowd': 0,
                        'segmentation': {'size': [height, width], 'counts': rle['counts'].decode()},
                    }
                )
        categories = [{'id': i + 1, 'name': name} for i, name in enumerate(classes)]
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        path = out / 'annotations' / f'instances_{split}.json'
        path.write_text(json.dumps(content), encoding='utf-8')
