"""Every entry of a COCO annotation file has what training will ask of it.

Data format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from polynl_mmdet.errors import InputError

SECTIONS = ('images', 'annotations', 'categories')
_LARGEST_SIDE = 10**6  # Pixels of an image.


def read_coco(path: str) -> dict:
    """Read a COCO annotation file and check it.

    Args:
        path (str): A local file.

    Returns:
        dict: Its content.

    Raises:
        InputError: It is missing or not whole JSON, or see :func:`check_coco`.
    """
    if not os.path.isfile(path):
        raise InputError(
            path,
            'no such annotation file',
            'accepted: a COCO JSON; set data_root and ann_file of the dataloader, and ann_file '
            'of the evaluator',
        )
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            path, f'not whole JSON ({error})', 'accepted: a complete COCO annotation file'
        ) from None
    except OSError as error:
        raise InputError(path, error.strerror or str(error), 'accepted: a COCO JSON') from None
    check_coco(content, path)
    return content


def check_coco(content: Any, path: str) -> None:
    """Check all entries of a COCO annotation file.

    Args:
        content (Any): What the JSON holds.
        path (str): The file, for the error.

    Raises:
        InputError: At the first entry that is wrong; it names section and index.
    """
    if not isinstance(content, dict):
        raise InputError(path, f'not COCO, a {_kind(content)}', f'accepted: a dict with {SECTIONS}')
    absent = [key for key in SECTIONS if not isinstance(content.get(key), list)]
    if absent:
        raise InputError(
            path, f'no list {", ".join(absent)}', f'accepted: a dict with the lists {SECTIONS}'
        )
    sizes = _check_images(content['images'], path)
    categories = _check_categories(content['categories'], path)
    _check_annotations(content['annotations'], sizes, categories, path)


def _entries(section: list, name: str, path: str) -> Iterator[tuple[str, dict]]:
    """Each entry and where it is; all must be dicts with ids that differ."""
    seen = set()
    for index, entry in enumerate(section):
        where = f'{path}: {name}[{index}]'
        if not isinstance(entry, dict):
            raise InputError(where, f'a {_kind(entry)}', 'accepted: a dict')
        number = entry.get('id')
        if isinstance(number, bool) or not isinstance(number, (int, str)):
            raise InputError(f'{where}.id', _shown(number), 'accepted: a number or text')
        if number in seen:
            raise InputError(
                f'{where}.id', f'{_shown(number)} for the second time', 'accepted: ids that differ'
            )
        seen.add(number)
        yield where, entry


def _check_images(images: list, path: str) -> dict[int | str, tuple[int, int]]:
    """Height and width of each image by its id."""
    sizes = {}
    for where, image in _entries(images, 'images', path):
        name = image.get('file_name')
        if not isinstance(name, str) or not name or '\0' in name:
            raise InputError(f'{where}.file_name', _shown(name), 'accepted: a file')
        for key in ('height', 'width'):
            side = image.get(key)
            if type(side) is not int or not 0 < side <= _LARGEST_SIDE:
                raise InputError(
                    f'{where}.{key}', _shown(side), f'accepted: whole pixels, 1 to {_LARGEST_SIDE}'
                )
        sizes[image['id']] = image['height'], image['width']
    return sizes


def _check_categories(categories: list, path: str) -> set[int | str]:
    ids = set()
    for where, category in _entries(categories, 'categories', path):
        if not isinstance(category.get('name'), str):
            raise InputError(f'{where}.name', _shown(category.get('name')), 'accepted: text')
        ids.add(category['id'])
    return ids


def _check_annotations(
    annotations: list, sizes: dict[int | str, tuple[int, int]], categories: set, path: str
) -> None:
    for where, annotation in _entries(annotations, 'annotations', path):
        for key, known in (('image_id', sizes), ('category_id', categories)):
            number = annotation.get(key)
            if not isinstance(number, (int, str)) or number not in known:
                raise InputError(f'{where}.{key}', _shown(number), 'accepted: an id in the file')
        box = annotation.get('bbox')
        if not _numbers(box) or len(box) != 4:
            raise InputError(f'{where}.bbox', _shown(box), 'accepted: x, y, width, height')
        if not _numbers([annotation.get('area')]):
            raise InputError(f'{where}.area', _shown(annotation.get('area')), 'accepted: a number')
        shape = annotation.get('segmentation')
        if shape:
            found = _wrong_shape(shape, sizes[annotation['image_id']])
            if found:
                raise InputError(
                    f'{where}.segmentation',
                    found,
                    "accepted: polygons of x, y, or run lengths of the image's size",
                )


def _wrong_shape(shape: Any, size: tuple[int, int]) -> str:
    """What is wrong with a segmentation; '' if nothing."""
    if isinstance(shape, list):
        side = max(size)
        for polygon in shape:
            if not _numbers(polygon) or len(polygon) % 2 or len(polygon) < 6:
                return f'the polygon {_shown(polygon)}'
            # Drawing one takes memory in proportion to its outline, inside the image or not.
            if min(polygon) < -side or max(polygon) > 2 * side:
                far = max(polygon, key=lambda value: abs(value - side / 2))
                return f'a polygon that reaches {_shown(far)}, in an image of {list(size)}'
        return ''
    if not isinstance(shape, dict):
        return _shown(shape)
    if shape.get('size') != list(size):
        return f'run lengths for an image of {_shown(shape.get("size"))}, not {list(size)}'
    counts = shape.get('counts')
    if isinstance(counts, list):
        if not all(type(n) is int and n >= 0 for n in counts) or sum(counts) != size[0] * size[1]:
            return f'run lengths {_shown(counts)}, which do not add up to {size[0] * size[1]}'
        return ''
    if not isinstance(counts, str):
        return f'run lengths {_shown(counts)}'
    found = _packed_length(counts)
    return '' if found == size[0] * size[1] else f'run lengths {_shown(counts)} of {found} pixels'


def _packed_length(counts: str) -> int | None:
    """Pixels of packed run lengths; None if they are malformed.

    As in pycocotools' maskApi.c: a number is written in characters from '0' on, 5 bits each, the
    lowest first, a sixth bit says that more follow; from the third on it is the difference to the
    number before the last.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        if value < 0:
            return None
        lengths.append(value)
        value = shift = 0
    return None if shift else sum(lengths)


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 10**15
    return type(value) is float and math.isfinite(value)


def _kind(value: Any) -> str:
    return type(value).__name__


def _shown(value: Any, most: int = 60) -> str:
    text = ascii(value)
    return text if len(text) <= most else f'{text[: most - 3]}...'
