"""COCO annotation files, checked for what training and evaluation will ask of them.

Data format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import print_log

from polynl_mmdet.errors import InputError

SECTIONS = ('images', 'annotations', 'categories')
_LARGEST_SIDE = 10**6  # Pixels of an image.
# For a key of an entry: whether a value is right, and what is accepted.
_Rules = dict[str, tuple[Callable[[Any], bool], str]]


class CheckedCoco(COCO):
    """mmdet's COCO index of an annotation file that is checked against a config's classes.

    Args:
        annotation_file (str): A COCO JSON file.

    Raises:
        InputError: See :func:`read_coco` and :meth:`get_cat_ids`.
    """

    def __init__(self, annotation_file: str) -> None:
        self.path = annotation_file
        content = read_coco(annotation_file)
        super().__init__(None)
        self.dataset = content
        self.createIndex()
        # mmdet names them so; its own constructor does it for an empty index.
        self.img_ann_map = self.imgToAnns
        self.cat_img_map = self.catToImgs

    def get_cat_ids(
        self, cat_names: Sequence = (), sup_names: Sequence = (), cat_ids: Sequence = ()
    ) -> list[int]:
        """Return category ids as mmdet does, for classes that are in the file and in its order.

        mmdet's label i is the i-th category of the file among the named ones, so classes in another
        order would go by each other's names.

        Raises:
            InputError: A class is not in the file, twice in it, or the order differs.
        """
        if cat_names:
            self._check_classes(list(cat_names))
        return super().get_cat_ids(cat_names, sup_names, cat_ids)

    def _check_classes(self, classes: list[str]) -> None:
        categories = {category['id']: category['name'] for category in self.dataset['categories']}
        names = list(categories.values())
        lacking = [name for name in classes if name not in names]
        if lacking:
            raise InputError(
                self.path,
                f'has the categories {_listed(names)}, but not {_listed(lacking)} of the '
                "config's classes",
                'accepted: a file with every class; to fit another file set metainfo=dict('
                "classes=...) of the datasets and num_classes of the model's heads",
            )
        in_file = [name for name in names if name in classes]
        if len(set(in_file)) < len(in_file):
            twice = next(name for name in in_file if in_file.count(name) > 1)
            raise InputError(self.path, f'two categories {twice!r}', 'accepted: one of a name')
        if in_file != classes:
            raise InputError(
                self.path,
                f"its categories are in another order than the config's classes {tuple(classes)}",
                f'accepted: metainfo=dict(classes={tuple(in_file)}), with a palette in that order',
            )
        annotations = self.dataset['annotations']
        unused = sum(categories[a['category_id']] not in classes for a in annotations)
        if unused:
            print_log(
                f'{self.path}: {unused} of {len(annotations)} annotations are of categories that '
                "the config's classes leave out",
                logger='current',
            )


def read_coco(path: str) -> dict:
    """Read a COCO annotation file and check it.

    Args:
        path (str): A local file.

    Returns:
        dict: Its content.

    Raises:
        InputError: It is missing or not whole JSON, or see :func:`check_coco`.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except FileNotFoundError:
        raise InputError(
            path,
            'no such annotation file',
            'accepted: a COCO JSON; set data_root and ann_file of the dataloader, and ann_file '
            'of the evaluator',
        ) from None
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        raise InputError(
            path, f'not whole JSON ({error})', 'accepted: a complete COCO annotation file'
        ) from None
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
        found = f'not COCO, a {type(content).__name__}'
        raise InputError(path, found, f'accepted: a dict with {SECTIONS}')
    absent = [key for key in SECTIONS if not isinstance(content.get(key), list)]
    if absent:
        found = f'no list {", ".join(absent)}'
        raise InputError(path, found, f'accepted: a dict with the lists {SECTIONS}')
    identity = (_is_id, 'a number or text')
    side = (
        lambda value: type(value) is int and 0 < value <= _LARGEST_SIDE,
        f'whole pixels, 1 to {_LARGEST_SIDE}',
    )
    file = (lambda value: isinstance(value, str) and value != '' and '\0' not in value, 'a file')
    name = (lambda value: isinstance(value, str), 'text')
    images = _check_section(
        content, 'images', path, dict(id=identity, file_name=file, height=side, width=side)
    )
    categories = _check_section(content, 'categories', path, dict(id=identity, name=name))
    rules: _Rules = dict(
        id=identity,
        image_id=(lambda value: _is_id(value) and value in images, 'an id in the file'),
        category_id=(lambda value: _is_id(value) and value in categories, 'an id in the file'),
        bbox=(lambda value: _are_numbers(value) and len(value) == 4, 'x, y, width, height'),
        area=(_is_number, 'a number'),
    )
    _check_section(content, 'annotations', path, rules)
    for index, annotation in enumerate(content['annotations']):
        image = images[annotation['image_id']]
        mask = annotation.get('segmentation')
        defect = _mask_defect(mask, [image['height'], image['width']]) if mask else ''
        if defect:
            raise InputError(
                f'{path}: annotations[{index}].segmentation',
                defect,
                "accepted: polygons of x, y, or run lengths of the image's size",
            )


def _check_section(content: dict, section: str, path: str, rules: _Rules) -> dict[int | str, dict]:
    """Check the entries of a section by their keys; return them by their ids."""
    entries: dict[int | str, dict] = {}
    for index, entry in enumerate(content[section]):
        where = f'{path}: {section}[{index}]'
        if not isinstance(entry, dict):
            raise InputError(where, f'a {type(entry).__name__}', 'accepted: a dict')
        for key, (is_right, accepted) in rules.items():
            if not is_right(entry.get(key)):
                raise InputError(f'{where}.{key}', _short(entry.get(key)), f'accepted: {accepted}')
        if entry['id'] in entries:
            found = f'{_short(entry["id"])} for the second time'
            raise InputError(f'{where}.id', found, 'accepted: ids that differ')
        entries[entry['id']] = entry
    return entries


def _mask_defect(mask: Any, size: list[int]) -> str:
    """Say what is wrong with a segmentation in an image of height and width; '' if nothing."""
    if isinstance(mask, list):
        side = max(size)
        for polygon in mask:
            if not _are_numbers(polygon) or len(polygon) % 2 or len(polygon) < 6:
                return f'the polygon {_short(polygon)}'
            # Drawing one takes memory in proportion to its outline, inside the image or not.
            if min(polygon) < -side or max(polygon) > 2 * side:
                far = max(polygon, key=lambda value: abs(value - side / 2))
                return f'a polygon that reaches {_short(far)}, in an image of {size}'
        return ''
    if not isinstance(mask, dict):
        return _short(mask)
    if mask.get('size') != size:
        return f'run lengths for an image of {_short(mask.get("size"))}, not {size}'
    counts = mask.get('counts')
    if isinstance(counts, str):
        counts = _unpack_run_lengths(counts)
    # pycocotools fills what is missing with whatever is in memory, or ends the process.
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return f'run lengths {_short(mask.get("counts"))}'
    if sum(counts) != math.prod(size):
        return f'run lengths of {sum(counts)} pixels, in an image of {size}'
    return ''


def _unpack_run_lengths(counts: str) -> list[int] | None:
    """Unpack run lengths, which pycocotools does without saying whether they are whole.

    Its maskApi.c writes a number in characters from '0' on, 5 bits each, the lowest first; a sixth
    bit says that more follow. From the third on it is the difference to the number before the last.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << shift - 4
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return None if shift else lengths


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 10**15
    return type(value) is float and math.isfinite(value)


def _listed(names: list[str], most: int = 5) -> str:
    shown = ', '.join(map(repr, names[:most]))
    return shown if len(names) <= most else f'{shown} and {len(names) - most} more'


def _short(value: Any, most: int = 60) -> str:
    text = ascii(value)
    return text if len(text) <= most else f'{text[: most - 3]}...'
