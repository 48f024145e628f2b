"""What the drawn data sets share: their arguments' checks, and files in COCO format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from polynl_mmdet.errors import InputError

SPLITS = ('train', 'val')
# From a split's own generator: a BGR image, and for each object its class and mask (H, W).
Drawer = Callable[[np.random.Generator], tuple[np.ndarray, list[tuple[int, np.ndarray]]]]


def prepare_folder(annotations: Path, overwrite: bool, **numbers: tuple[int, int]) -> None:
    """Check a generator's arguments and make its annotation folder.

    Args:
        annotations (Path): Folder of the annotations.
        overwrite (bool): Whether it may exist already.
        **numbers (tuple[int, int]): Value and least value of each numeric option.

    Raises:
        InputError: A number is too small, or the folder exists.
    """
    for name, (value, least) in numbers.items():
        if value < least:
            raise InputError(f'--{name}', str(value), f'accepted: {least} or more')
    if annotations.exists() and not overwrite:
        raise InputError(
            str(annotations), 'exists already', 'accepted: another folder, or --overwrite'
        )
    annotations.mkdir(parents=True, exist_ok=True)


def empty_folder(folder: Path) -> None:
    """Make a folder of images, without those of an earlier set."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob('*.jpg'):
        stale.unlink()


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write a BGR image, uint8, shape (H, W, 3)."""
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_toy_coco(
    out: Path, counts: Sequence[int], seed: int, classes: Sequence[str], draw: Drawer
) -> None:
    """Write ``out/{train,val}/*.jpg`` and ``out/annotations/instances_{train,val}.json``.

    Args:
        out (Path): Folder that holds ``annotations`` already.
        counts (Sequence[int]): Images of each of ``SPLITS``.
        seed (int): Every image has a generator of its own, of this, its split and its index.
        classes (Sequence[str]): Names of the categories 1, 2, ...
        draw (Callable): Draws one image; masks are of 0 and 1, or bool.
    """
    for number, (split, count) in enumerate(zip(SPLITS, counts)):
        empty_folder(out / split)
        content = {
            'images': [],
            'annotations': [],
            'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(classes)],
        }
        for index in tqdm(range(count), desc=f'drawing {split}', unit='image'):
            image, objects = draw(np.random.default_rng((seed, number, index)))
            name = f'{index:06d}.jpg'
            write_jpeg(out / split / name, image)
            height, width = image.shape[:2]
            entry = {'id': index, 'file_name': name, 'height': height, 'width': width}
            content['images'].append(entry)
            for label, mask in objects:
                rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
                annotation = {
                    'id': len(content['annotations']) + 1,
                    'image_id': index,
                    'category_id': label + 1,
                    'bbox': [float(v) for v in coco_mask.toBbox(rle)],
                    'area': float(coco_mask.area(rle)),
                    'iscrowd': 0,
                    'segmentation': {'size': [height, width], 'counts': rle['counts'].decode()},
                }
                content['annotations'].append(annotation)
        path = out / 'annotations' / f'instances_{split}.json'
        path.write_text(json.dumps(content), encoding='utf-8')
