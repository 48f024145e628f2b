"""A training batch as plain containers and tensors, and back, so that a file can hold it safely."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

_KIND = '__kind__'


def to_plain(value: Any) -> Any:
    """Turn a batch into what ``torch.load`` takes with ``weights_only``.

    Args:
        value (Any): Containers, numbers, text, tensors, arrays, and what mmengine and mmdet keep in
            data samples: data elements, masks, boxes.

    Returns:
        Any: Dictionaries, lists, tuples, numbers, text and CPU tensors. What is none of the above
            becomes its ``repr``, marked as such.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return {_KIND: 'ndarray', 'values': torch.from_numpy(np.ascontiguousarray(value).copy())}
    if isinstance(value, BaseDataElement):
        return {
            _KIND: type(value).__name__,
            'metainfo': to_plain(dict(value.metainfo_items())),
            'data': to_plain(dict(value.items())),
        }
    if isinstance(value, dict):
        return {to_plain(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(entry) for entry in value)
    if isinstance(value, (list, np.ndarray)):
        return [to_plain(entry) for entry in value]
    return _structure_to_plain(value)


def from_plain(value: Any) -> Any:
    """Turn what :func:`to_plain` gave into a batch again.

    Args:
        value (Any): Its result.

    Returns:
        Any: The batch. Data elements of classes that are not mmengine's or mmdet's come back as
            ``BaseDataElement``, and what was kept as a ``repr`` as that text.
    """
    if isinstance(value, dict):
        if _KIND not in value:
            return {key: from_plain(entry) for key, entry in value.items()}
        kind = value[_KIND]
        if kind == 'ndarray':
            return value['values'].numpy()
        if kind == 'repr':
            return value['text']
        if 'metainfo' in value:
            element = _element_class(kind)(metainfo=from_plain(value['metainfo']))
            for key, entry in value['data'].items():
                setattr(element, key, from_plain(entry))
            return element
        return _structure_from_plain(value)
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(entry) for entry in value)
    return value


def image_names(batch: Any) -> list[str]:
    """list[str]: ``img_path`` of a batch's data samples, in their order, wherever they are."""
    if isinstance(batch, BaseDataElement):
        name = batch.metainfo.get('img_path') or batch.metainfo.get('img_id')
        return [] if name is None else [str(name)]
    parts = batch.values() if isinstance(batch, dict) else batch
    if isinstance(batch, (dict, list, tuple)):
        return [name for part in parts for name in image_names(part)]
    return []


def _structure_to_plain(value: Any) -> dict:
    kind = type(value).__name__
    if kind == 'BitmapMasks':
        return {_KIND: kind, 'masks': torch.from_numpy(value.masks.copy()), **_size(value)}
    if kind == 'PolygonMasks':
        polygons = [[torch.from_numpy(part.copy()) for part in one] for one in value.masks]
        return {_KIND: kind, 'masks': polygons, **_size(value)}
    if kind in ('HorizontalBoxes', 'BaseBoxes'):
        return {_KIND: kind, 'boxes': value.tensor.detach().cpu().clone()}
    return {_KIND: 'repr', 'text': f'{kind}: {value!r}'[:1000]}


def _structure_from_plain(value: dict) -> Any:
    # mmdet's: this module also serves where mmdet is not.
    from mmdet.structures import bbox, mask

    if value[_KIND] == 'BitmapMasks':
        return mask.BitmapMasks(value['masks'].numpy(), value['height'], value['width'])
    if value[_KIND] == 'PolygonMasks':
        polygons = [[part.numpy() for part in one] for one in value['masks']]
        return mask.PolygonMasks(polygons, value['height'], value['width'])
    return bbox.HorizontalBoxes(value['boxes'])


def _size(masks: Any) -> dict:
    return dict(height=int(masks.height), width=int(masks.width))


def _element_class(name: str) -> type[BaseDataElement]:
    for known in (InstanceData, PixelData):
        if name == known.__name__:
            return known
    try:
        from mmdet import structures
    except ImportError:
        return BaseDataElement
    found = getattr(structures, name, BaseDataElement)
    return found if issubclass(found, BaseDataElement) else BaseDataElement
