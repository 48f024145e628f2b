"""Every reader of the project with valid files for it, and how files are damaged."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from pycocotools.mask import encode

import polynl_mmdet  # noqa: F401  Registers the datasets.
from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.wider_face import (
    WiderFaceGroundTruth,
    read_ground_truth,
    read_predictions,
    score_wider_face,
    write_ground_truth,
)
from polynl_mmdet.wider_face.annotations import read_annotations
from validation.hostile_checkpoints import _tool

MARKS = ' '.join(['12.5 20 0.0'] * 5)
NO_MARKS = ' '.join(['-1'] * 15)
OFFICIAL = (
    '0--A/p1.jpg\n2\n276 114 60 104 0 0 1 0 0 0 \n404 120 54 82 2 1 0 1 2 1 \n'
    '0--A/e.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n1--B/p2.jpg\n1\n5 6 0 8 0 0 0 0 0 0 \n'
)
LABEL = f'# 0--A/p1.jpg\n449 330 122 149 {MARKS} 0.82\n7 8 9 9 {NO_MARKS} 0.2\n# 0--A/e.jpg\n'
LABEL_V2 = f'# 0--A/p1.jpg 1024 1385\n4 3 571 479 {MARKS}\n7 8 9 9 {NO_MARKS}\n# 0--A/e.jpg 9 9\n'
BOXES_ALONE = '# 0--A/p1.jpg\n1 2 3 4\n5 6 7 8\n'
PREDICTION = 'p1\n3\n1 2 30 40 0.9 \n5.5 6 7 8 1e-3\n0 0 1 1 .5\n'

# What takes the place of a number or of a line.
ODD = [
    b'0', b'-1', b'1e999', b'-1e308', b'nan', b'inf', b'1e400', b'999999999999', b'9' * 5000,
    b'1_0', b'0x10', b'', b' ', b'\r', b'\x0b', b'\x85', b'\xa0', b'\x00', b'\xff\xfe', b'#',
    b'/', b'../..', b'1 2 3 4 5', b'\n', b'\n\n', b'\xc3\xa9', b'1.5.2', b'+-1', b'true',
]  # fmt: skip
ODD_VALUES = [
    None, True, -1, 0, 1.5, 1e308, float('nan'), float('inf'), 10**30, '', 'x', '\0', '../x', [],
    [[]], {}, {'size': [9, 9], 'counts': '0'}, [[1, 2, 3]], [1, 2, 3, 4], 'é' * 50, [None] * 4,
]  # fmt: skip


@dataclass
class Reader:
    """One reader.

    Attributes:
        valid (Callable): Gives files that it takes.
        read (Callable): Reads a file's content; the folder is for it to write to.
        strategy (Callable): Gives damaged files, a strategy of bytes.
    """

    valid: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], Any]
    strategy: Callable[[], st.SearchStrategy]


READERS: dict[str, Reader] = {}


def damaged(files: list[bytes]) -> st.SearchStrategy:
    """Files to which up to four things were done, or plain bytes."""
    places = st.floats(0, 1, exclude_max=True)
    kinds = st.sampled_from(['flip', 'cut', 'drop', 'double', 'swap', 'number', 'insert', 'remove'])
    step = st.tuples(kinds, places, places, st.sampled_from(ODD), st.integers(0, 255))
    changed = st.builds(_apply, st.sampled_from(files), st.lists(step, min_size=1, max_size=4))
    return st.one_of(*[changed] * 9, st.binary(max_size=200))


def _apply(data: bytes, steps: list[tuple]) -> bytes:
    for kind, place, other, odd, byte in steps:
        at, to = int(place * len(data)), int(other * len(data))
        lines = data.split(b'\n')
        line, second = int(place * len(lines)), int(other * len(lines))
        if kind == 'flip' and data:
            data = data[:at] + bytes([byte]) + data[at + 1 :]
        elif kind == 'cut':
            data = data[:at]
        elif kind == 'remove':
            data = data[: min(at, to)] + data[max(at, to) :]
        elif kind == 'insert':
            data = data[:at] + odd + data[at:]
        elif kind == 'number':
            words = lines[line].split(b' ')
            words[int(other * len(words))] = odd
            lines[line] = b' '.join(words)
            data = b'\n'.join(lines)
        elif kind in ('drop', 'double', 'swap'):
            chosen = {'drop': [], 'double': [lines[line]] * 2, 'swap': [lines[second]]}[kind]
            data = b'\n'.join([*lines[:line], *chosen, *lines[line + 1 :]])
    return data


def enter(name: str, valid: Callable, strategy: Callable | None = None) -> Callable:
    """Enter a reader in ``READERS``; without a strategy its valid files are damaged as bytes."""

    def add(read: Callable) -> Callable:
        READERS[name] = Reader(valid, read, strategy or (lambda: damaged(valid())))
        return read

    return add


def _annotations(data: bytes, folder: Path) -> None:
    path = folder / 'labels.txt'
    path.write_bytes(data)
    found = read_annotations(path)
    assert found.starts[-1] == len(found.rows)
    assert len(found.starts) == len(found.names) + 1 == len(found.lines) + 1
    dataset = DATASETS.build(
        dict(
            type='mmdet.RetinaFaceDataset',
            ann_file=str(path),
            pipeline=[],
            min_size=5,
            serialize_data=False,
        )
    )
    for index in range(len(dataset)):
        dataset.get_data_info(index)


for _name, _text in {
    'annotations bbx_gt': OFFICIAL,
    'annotations label': LABEL,
    'annotations label, boxes': BOXES_ALONE,
    'annotations labelv2': LABEL_V2,
}.items():
    enter(_name, lambda text=_text: [text.encode(), text.replace('\n', '\r\n').encode()])(
        _annotations
    )


def _truth() -> WiderFaceGroundTruth:
    counted = {name: np.array([True, False, True]) for name in ('easy', 'medium', 'hard')}
    boxes = np.array([[1, 2, 30, 40], [5, 6, 7, 8], [9, 9, 20, 20]], dtype=float)
    return WiderFaceGroundTruth(
        ['0--A/p1', '0--A/p2', '1--B/p3'], np.array([0, 2, 2, 3]), boxes, counted
    )


@enter('prediction files', lambda: [PREDICTION.encode(), b'p1\n0\n'])
def _(data: bytes, folder: Path) -> None:
    for name, content in (('p1', data), ('p2', PREDICTION.encode())):
        path = folder / '0--A' / f'{name}.txt'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    found, _ = read_predictions(folder, {'0--A/p1', '0--A/p2'})
    assert found['0--A/p2'].tolist()[0] == [1, 2, 30, 40, 0.9]
    score_wider_face(found, _truth())


def _zip(names: list[str], contents: list[bytes], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', method) as archive:
        for name, content in zip(names, contents):
            archive.writestr(name, content)
    return buffer.getvalue()


def _valid_zips(*more: int) -> list[bytes]:
    names = ['x/0--A/p1.txt', 'x/0--A/p2.txt', 'x/0--A/', 'README']
    contents = [PREDICTION.encode(), b'p2\n0\n', b'', b'hi']
    methods = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, *more
    return [_zip(names, contents, method) for method in methods]


def _zip_strategy() -> st.SearchStrategy:
    parts = ['..', '.', '', '0--A', 'p1.txt', 'p2.txt', 'C:', 'ä', 'a\\b', '\x01', 'x' * 300]
    name = st.lists(st.sampled_from(parts), min_size=1, max_size=5).map('/'.join).filter(bool)
    content = damaged([PREDICTION.encode()])
    named = st.lists(st.tuples(name, content), max_size=4).map(
        lambda pairs: _zip([p[0] for p in pairs], [p[1] for p in pairs], zipfile.ZIP_DEFLATED)
    )
    return st.one_of(damaged(_valid_zips(zipfile.ZIP_LZMA)), named)


@enter('prediction zips', _valid_zips, _zip_strategy)
def _(data: bytes, folder: Path) -> None:
    (folder / 'z.zip').write_bytes(data)
    before = sorted(folder.iterdir())
    try:
        read_predictions(folder / 'z.zip')
    finally:
        assert sorted(folder.iterdir()) == before


def _mat_files() -> list[bytes]:
    """wider_face_val.mat and wider_hard_val.mat, each with its parts unpacked."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_ground_truth(folder, _truth())
        packed = [Path(folder, f'wider_{n}_val.mat').read_bytes() for n in ('face', 'hard')]
    files = []
    for data in packed:
        parts = [data[:128]]
        at = 128
        while at < len(data):
            _, length = struct.unpack_from('<II', data, at)
            parts.append(zlib.decompress(data[at + 8 : at + 8 + length]))
            at += 8 + length
        files.append(b''.join(parts))
    return files


def _repack(data: bytes) -> bytes:
    """All after the header as one compressed part."""
    packed = zlib.compress(data[128:])
    return data[:128] + struct.pack('<II', 15, len(packed)) + packed


def _mat_strategy() -> st.SearchStrategy:
    plain = damaged(_mat_files())
    return st.one_of(plain, plain.map(_repack))


@enter('ground truth .mat', _mat_files, _mat_strategy)
def _(data: bytes, folder: Path) -> None:
    for name in ('face', 'hard'):
        target = folder / name
        if not target.is_dir():
            write_ground_truth(target, _truth())
        (target / f'wider_{name}_val.mat').write_bytes(data)
    errors = []
    for name in ('face', 'hard'):
        try:
            read_ground_truth(folder / name)
        except Exception as error:
            errors.append(error)
    # The content fits one of the two names; what it says to the other counts as well.
    for error in sorted(errors, key=lambda e: type(e).__name__ == 'InputError'):
        if len(errors) == 2 or type(error).__name__ != 'InputError':
            raise error


def _coco() -> dict:
    polygon = [[1.0, 2.0, 30.0, 2.0, 30.0, 20.5]]
    lengths = {'size': [40, 50], 'counts': [100, 50, 1850]}
    mask = np.zeros((40, 50), np.uint8, order='F')
    mask[3:9, 10:30] = 1
    packed = {'size': [40, 50], 'counts': encode(mask)['counts'].decode()}
    common = dict(image_id=1, category_id=3, bbox=[1, 2, 29.5, 18.5], area=300.0)
    return {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 40, 'width': 50}],
        'annotations': [
            dict(common, id=1, iscrowd=0, segmentation=polygon),
            dict(common, id=2, iscrowd=1, segmentation=lengths),
            dict(common, id=3, iscrowd=0, segmentation=packed),
        ],
        'categories': [{'id': 3, 'name': 'circle'}],
    }


def _paths(value: Any, path: tuple = ()) -> list[tuple]:
    found = [path]
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        found += _paths(value[key], (*path, key))
    return found


def _replace(steps: list[tuple]) -> bytes:
    content = _coco()
    for place, value, delete in steps:
        paths = _paths(content)
        *way, last = paths[1:][int(place * len(paths[1:]))] if paths[1:] else ('images',)
        target = content
        for key in way:
            target = target[key]
        if delete and paths[1:]:
            del target[last]
        else:
            target[last] = copy.deepcopy(value)
    return json.dumps(content).encode()


def _coco_strategy() -> st.SearchStrategy:
    place = st.floats(0, 1, exclude_max=True)
    step = st.tuples(place, st.sampled_from(ODD_VALUES), st.booleans())
    return st.one_of(
        st.builds(_replace, st.lists(step, min_size=1, max_size=3)),
        damaged([json.dumps(_coco()).encode()]),
        st.integers(1, 3000).map(lambda n: b'[' * n),
    )


@enter('COCO JSON', lambda: [json.dumps(_coco()).encode()], _coco_strategy)
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


def _state() -> dict:
    return {
        'module.body.stage1.0.0.weight': torch.zeros(8, 3, 3, 3),
        'module.body.stage1.0.1.num_batches_tracked': torch.tensor(3),
        'module.ClassHead.0.conv1x1.weight': torch.zeros(4, 64, 1, 1),
        'module.ClassHead.0.conv1x1.bias': torch.zeros(4),
    }


def _checkpoint(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _checkpoints() -> list[bytes]:
    return [_checkpoint(_state()), _checkpoint(_state(), zipped=False), pickle.dumps({}, 2)]


def _with_pickle(pickled: bytes) -> bytes:
    """The checkpoint with another pickle inside, all checksums right."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_checkpoint(_state()))) as source,
        zipfile.ZipFile(out, 'w') as new,
    ):
        for entry in source.infolist():
            inside = entry.filename.endswith('data.pkl')
            new.writestr(entry.filename, pickled if inside else source.read(entry))
    return out.getvalue()


def _checkpoint_strategy() -> st.SearchStrategy:
    with zipfile.ZipFile(io.BytesIO(_checkpoint(_state()))) as archive:
        pickled = archive.read('archive/data.pkl')
    return st.one_of(damaged(_checkpoints()), damaged([pickled]).map(_with_pickle))


@enter('checkpoints', lambda: _checkpoints()[:2], _checkpoint_strategy)
def _(data: bytes, folder: Path) -> None:
    path = folder / 'x.pth'
    path.write_bytes(data)
    load_checkpoint(str(path))


@enter('converter input', lambda: _checkpoints()[:2], _checkpoint_strategy)
def _(data: bytes, folder: Path) -> None:
    path = folder / 'x.pth'
    path.write_bytes(data)
    convert = _tool('convert_retinaface')
    source = convert.load_source(str(path))
    convert.find_config(source, str(path))
    convert.convert(source)
