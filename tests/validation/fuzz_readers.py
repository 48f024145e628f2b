"""Every reader of the project with valid files for it, and how files are damaged."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import runpy
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from hostile_files import archive, saved
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from pycocotools.mask import encode
from scipy.io import loadmat, savemat

import polynl_mmdet  # noqa: F401  Registers the datasets.
from polynl_mmdet.wider_face import (
    WiderFaceGroundTruth,
    read_ground_truth,
    read_predictions,
    score_wider_face,
    write_ground_truth,
)
from polynl_mmdet.wider_face.annotations import read_annotations
from validation.forked import ROOT

MARKS = ' '.join(['12.5 20 0.0'] * 5)
NO_MARKS = ' '.join(['-1'] * 15)
OFFICIAL = (
    '0--A/p1.jpg\n2\n276 114 60 104 0 0 1 0 0 0 \n404 120 54 82 2 1 0 1 2 1 \n'
    '0--A/e.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n1--B/p2.jpg\n1\n5 6 0 8 0 0 0 0 0 0 \n'
)
LABEL = f'# 0--A/p1.jpg\n449 330 122 149 {MARKS} 0.82\n7 8 9 9 {NO_MARKS} 0.2\n# 0--A/e.jpg\n'
LABEL_V2 = f'# 0--A/p1.jpg 1024 1385\n4 3 571 479 {MARKS}\n7 8 9 9 {NO_MARKS}\n# 0--A/e.jpg 9 9\n'
BOXES_ALONE = '# 0--A/p1.jpg\n1 2 3 4\n5 6 7 8\n'
PREDICTION = b'p1\n3\n1 2 30 40 0.9 \n5.5 6 7 8 1e-3\n0 0 1 1 .5\n'

# What takes the place of a number or of a line, and of a value in JSON.
ODD = [
    b'0', b'-1', b'1e999', b'-1e308', b'nan', b'inf', b'1e400', b'999999999999', b'9' * 5000,
    b'1_0', b'0x10', b'', b' ', b'\r', b'\x0b', b'\x85', b'\xa0', b'\x00', b'\xff\xfe', b'#',
    b'/', b'../..', b'1 2 3 4 5', b'\n', b'\n\n', b'\xc3\xa9', b'1.5.2', b'+-1', b'true',
]  # fmt: skip
ODD_VALUES = [
    None, True, -1, 0, 1.5, 1e308, float('nan'), float('inf'), 10**30, '', 'x', '\0', '../x', [],
    [[]], {}, {'size': [9, 9], 'counts': '0'}, [[1, 2, 3]], [1, 2, 3, 4], 'é' * 50, [None] * 4,
]  # fmt: skip


class Reader(NamedTuple):
    """Files that a reader takes, a function that reads one, and one that draws damaged ones."""

    files: list[bytes]
    read: Callable[[bytes, Path], Any]
    damaged: Callable[[Random], bytes]


READERS: dict[str, Reader] = {}


def reader(name: str, files: list[bytes], *damaged: Callable[[Random], bytes]) -> Callable:
    """Add a reader to ``READERS``; its files are damaged as bytes, or by the given functions."""

    def add(read: Callable[[bytes, Path], Any]) -> None:
        ways = damaged or (partial(damage, files),)
        READERS[name] = Reader(files, read, lambda draw: draw.choice(ways)(draw))

    return add


def damage(files: list[bytes], draw: Random) -> bytes:
    """Change a file in up to four places: bytes, words or lines. One in ten is plain bytes."""
    if draw.random() < 0.1:
        return draw.randbytes(draw.randrange(200))
    data = draw.choice(files)
    for _ in range(draw.randint(1, 4)):
        separator = draw.choice([b'', b' ', b'\n'])
        parts = data.split(separator) if separator else [bytes([byte]) for byte in data]
        at, count = draw.randrange(len(parts) + 1), draw.choice([0, 1, 1, 1, 2, len(parts)])
        others = [[draw.choice(parts)]] if parts else []
        parts[at : at + count] = draw.choice(
            [[], [draw.choice(ODD)], [draw.choice(ODD)], [draw.randbytes(1)], *others]
        )
        data = separator.join(parts)
    return data


def _annotations(data: bytes, folder: Path) -> None:
    path = folder / 'labels.txt'
    path.write_bytes(data)
    found = read_annotations(path)
    assert found.starts[-1] == len(found.rows)
    assert len(found.starts) == len(found.names) + 1 == len(found.lines) + 1
    options = dict(ann_file=str(path), pipeline=[], min_size=5, serialize_data=False)
    dataset = DATASETS.build(dict(type='mmdet.RetinaFaceDataset', **options))
    for index in range(len(dataset)):
        dataset.get_data_info(index)


for _name, _text in {
    'annotations bbx_gt': OFFICIAL,
    'annotations label': LABEL,
    'annotations label, boxes alone': BOXES_ALONE,
    'annotations labelv2': LABEL_V2,
}.items():
    reader(_name, [_text.encode(), _text.replace('\n', '\r\n').encode()])(_annotations)


def ground_truth() -> WiderFaceGroundTruth:
    """Return three images with three faces."""
    counted = {name: np.array([True, False, True]) for name in ('easy', 'medium', 'hard')}
    boxes = np.array([[1, 2, 30, 40], [5, 6, 7, 8], [9, 9, 20, 20]], dtype=float)
    names = ['0--A/p1', '0--A/p2', '1--B/p3']
    return WiderFaceGroundTruth(names, np.array([0, 2, 2, 3]), boxes, counted)


@reader('prediction files', [PREDICTION, b'p1\n0\n'])
def _(data: bytes, folder: Path) -> None:
    (folder / '0--A').mkdir(exist_ok=True)
    (folder / '0--A/p1.txt').write_bytes(data)
    (folder / '0--A/p2.txt').write_bytes(PREDICTION)
    found, _ = read_predictions(folder, {'0--A/p1', '0--A/p2'})
    assert found['0--A/p2'].tolist()[0] == [1, 2, 30, 40, 0.9]
    score_wider_face(found, ground_truth())


_ENTRIES = {'x/0--A/p1.txt': PREDICTION, 'x/0--A/p2.txt': b'p2\n0\n', 'x/0--A/': b'', 'README': b''}
_STORED, _DEFLATED, _BZIP2, _LZMA = (archive(_ENTRIES, method) for method in (0, 8, 12, 14))
_PARTS = ['..', '.', '', '0--A', 'p1.txt', 'p2.txt', 'C:', 'ä', 'a\\b', '\x01', 'x' * 300]


def _zip_of_odd_names(draw: Random) -> bytes:
    names = {'/'.join(draw.choices(_PARTS, k=draw.randint(1, 5))) for _ in range(4)} - {''}
    return archive({name: damage([PREDICTION], draw) for name in sorted(names)})


@reader(
    'prediction zips',
    [_STORED, _DEFLATED, _BZIP2],
    partial(damage, [_STORED, _DEFLATED, _BZIP2, _LZMA]),
    _zip_of_odd_names,
)
def _(data: bytes, folder: Path) -> None:
    (folder / 'z.zip').write_bytes(data)
    before = sorted(folder.iterdir())
    try:
        read_predictions(folder / 'z.zip')
    finally:
        assert sorted(folder.iterdir()) == before


def _mat_files(name: str) -> list[bytes]:
    """Return a file of the ground truth, as it is and with its variables not compressed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write_ground_truth(folder, ground_truth())
        packed, variables = path.read_bytes(), loadmat(str(path))
        savemat(path, {k: v for k, v in variables.items() if k[0] != '_'}, do_compression=False)
        return [path.read_bytes(), packed]


def _read_ground_truth(name: str, data: bytes, folder: Path) -> None:
    if not (folder / name).is_dir():
        write_ground_truth(folder / name, ground_truth())
    (folder / name / name).write_bytes(data)
    read_ground_truth(folder / name)


for _name in ('wider_face_val.mat', 'wider_hard_val.mat'):
    reader(f'ground truth {_name}', _mat_files(_name))(partial(_read_ground_truth, _name))


def coco() -> dict:
    """Return COCO annotations: a polygon, run lengths and packed run lengths."""
    mask = np.zeros((40, 50), np.uint8, order='F')
    mask[3:9, 10:30] = 1
    shapes = (
        [[1.0, 2.0, 30.0, 2.0, 30.0, 20.5]],
        {'size': [40, 50], 'counts': [100, 50, 1850]},
        {'size': [40, 50], 'counts': encode(mask)['counts'].decode()},
    )
    common = dict(image_id=1, category_id=3, bbox=[1, 2, 29.5, 18.5], area=300.0)
    return {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 40, 'width': 50}],
        'annotations': [
            dict(common, id=number, iscrowd=int(number == 2), segmentation=shape)
            for number, shape in enumerate(shapes, 1)
        ],
        'categories': [{'id': 3, 'name': 'circle'}],
    }


def _places(value: Any) -> list[tuple]:
    """Return every container inside a value with every key of it."""
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    return [(value, key) for key in keys] + [p for key in keys for p in _places(value[key])]


def _change_values(draw: Random) -> bytes:
    content = coco()
    for _ in range(draw.randint(1, 3)):
        container, key = draw.choice(_places(content) or [({0: 0}, 0)])
        container[key] = copy.deepcopy(draw.choice(ODD_VALUES))
        if draw.random() < 0.5:
            del container[key]
    return json.dumps(content).encode()


_COCO = [json.dumps(coco()).encode()]


@reader(
    'COCO JSON',
    _COCO,
    *[_change_values] * 4,
    *[partial(damage, _COCO)] * 4,
    lambda draw: b'[' * draw.randint(1, 3000),
)
def _(data: bytes, folder: Path) -> None:
    init_default_scope('mmdet')
    path = folder / 'instances.json'
    path.write_bytes(data)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = DATASETS.build(
            dict(
                type='CheckedCocoDataset',
                ann_file=str(path),
                metainfo=dict(classes=('circle',)),
                data_prefix=dict(img='images'),
                pipeline=[dict(type='LoadAnnotations', with_bbox=True, with_mask=True)],
                serialize_data=False,
                filter_cfg=dict(filter_empty_gt=True, min_size=2),
            )
        )
    for index in range(min(len(dataset), 3)):
        info = dataset.get_data_info(index)
        if info['height'] * info['width'] < 10**5:
            info['ori_shape'] = info['height'], info['width']
            dataset.pipeline(info)['gt_masks'].to_ndarray()


_STATE = {
    'module.body.stage1.0.0.weight': torch.zeros(8, 3, 3, 3),
    'module.body.stage1.0.1.num_batches_tracked': torch.tensor(3),
    'module.ClassHead.0.conv1x1.weight': torch.zeros(4, 64, 1, 1),
    'module.ClassHead.0.conv1x1.bias': torch.zeros(4),
}
_CHECKPOINTS = [saved(_STATE), saved(_STATE, zipped=False)]
with zipfile.ZipFile(io.BytesIO(_CHECKPOINTS[0])) as _file:
    _RECORDS = {name: _file.read(name) for name in _file.namelist()}


def _with_damaged_pickle(draw: Random) -> bytes:
    """Return the checkpoint with a damaged pickle, and all checksums right."""
    pickled = damage([_RECORDS['archive/data.pkl']], draw)
    return archive({**_RECORDS, 'archive/data.pkl': pickled})


_DAMAGED = partial(damage, [*_CHECKPOINTS, pickle.dumps({}, 2)]), _with_damaged_pickle


CONVERTER = runpy.run_path(str(ROOT / 'tools/convert_retinaface.py'))


@reader('converter input', _CHECKPOINTS, *_DAMAGED)
def _(data: bytes, folder: Path) -> None:
    (folder / 'x.pth').write_bytes(data)
    source = CONVERTER['load_source'](str(folder / 'x.pth'))
    CONVERTER['find_config'](source, str(folder / 'x.pth'))
    CONVERTER['convert'](source)
