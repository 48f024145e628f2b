"""Images that are not as they should be, through the pipelines of the configs."""

from __future__ import annotations

import copy
import functools
import io
import json
import logging
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image
from torch.utils.data import DataLoader

from polynl_mmdet.datasets.bad_images import SKIPPED
from polynl_mmdet.datasets.image_files import BadImageError, truncation
from polynl_mmdet.engine.hooks.bad_image_hook import BadImageHook
from polynl_mmdet.errors import InputError

HEIGHT, WIDTH = 40, 60
COCO = 'configs/demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'
COCO_1X = 'configs/mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py'
FACE = 'configs/retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'


def colours(height=HEIGHT, width=WIDTH):
    """np.ndarray: a BGR image, smooth so that JPEG keeps it."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // max(height, 2), columns * 255 // max(width, 2), rows * 0 + 90]
    return np.stack(planes, axis=2).astype(np.uint8)


def encoded(suffix='.jpg', image=None, *options):
    image = colours() if image is None else image
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def by_pillow(image, fmt='JPEG', **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return by_pillow(Image.fromarray(colours()[..., ::-1]), exif=exif, quality=95)


def with_thumbnail(kept):
    """A JPEG whose header holds a whole JPEG, cut off in its own scan."""
    thumb = encoded()
    comment = b'\xff\xfe' + (len(thumb) + 2).to_bytes(2, 'big') + thumb
    data = encoded()
    return (data[:2] + comment + data[2:])[: int(kept * (len(data) + len(comment)))]


def write_coco(root, files, sizes=None):
    images, annotations = [], []
    for index, (name, data) in enumerate(files.items()):
        height, width = (sizes or {}).get(name, (HEIGHT, WIDTH))
        images.append(dict(id=index, file_name=name, height=height, width=width))
        box = [0, 0, width, height]
        polygon = [0.0, 0.0, width, 0.0, width, height]
        annotations.append(
            dict(id=index, image_id=index, category_id=1, bbox=box, area=width * height, iscrowd=0,
                 segmentation=[polygon])
        )  # fmt: skip
        if data is not None:
            (root / name).write_bytes(data)
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='circle')])
    (root / 'ann.json').write_text(json.dumps(content))


@functools.lru_cache
def config(path):
    return Config.fromfile(str(path))


def coco(repo_root, root, split='train', path=COCO, **more):
    dataset = copy.deepcopy(config(repo_root / path)[f'{split}_dataloader'].dataset)
    dataset.update(
        data_root='', ann_file=str(root / 'ann.json'), data_prefix=dict(img=str(root)),
        serialize_data=False, metainfo=dict(classes=('circle',)), **more,
    )  # fmt: skip
    return DATASETS.build(dataset)


def faces(repo_root, root, files, split='train', fmt='label', size=(WIDTH, HEIGHT), **more):
    lines = []
    for name, data in files.items():
        lines += [f'# E/{name}' + (f' {size[0]} {size[1]}' if fmt == 'labelv2' else '')]
        lines += ['0 0 1 1 ' + ' '.join(['-1'] * 15)]
        (root / 'E').mkdir(exist_ok=True)
        if data is not None:
            (root / 'E' / name).write_bytes(data)
    (root / 'label.txt').write_text('\n'.join(lines))
    dataset = copy.deepcopy(config(repo_root / FACE)[f'{split}_dataloader'].dataset)
    dataset.update(
        data_root='',
        ann_file=str(root / 'label.txt'),
        data_prefix=dict(img=str(root)),
        serialize_data=False,
        **more,
    )
    return DATASETS.build(dataset)


BAD = {
    'missing.jpg': (None, 'missing'),
    'empty.jpg': (b'', 'an empty file'),
    'junk.jpg': (b'no image at all', 'not an image'),
    'cut.jpg': (encoded()[:-40], 'a JPEG that is cut off'),
    'half.jpg': (encoded()[: len(encoded()) // 2], 'a JPEG that is cut off'),
    'header.jpg': (encoded()[:30], 'a JPEG that is cut off'),
    'scan.jpg': (b'\xff\xd8\xff\xda' + bytes(9) + b'\xff\xd9', 'not an image that can be decoded'),
    'thumbnail.jpg': (with_thumbnail(0.9), 'a JPEG that is cut off'),
    'cut.png': (encoded('.png')[:-20], 'a PNG that is cut off'),
    'cut.webp': (encoded('.webp')[:-20], 'a WebP that is cut off'),
    'cut.bmp': (encoded('.bmp')[:40], 'not an image that can be decoded'),
    'size.jpg': (encoded(image=colours(50, 60)), '60 x 50 pixels; accepted: 60 x 40'),
    'turned.jpg': (turned(6), 'turned by its EXIF orientation, 60 x 40 as stored'),
}
GOOD = {
    'plain.jpg': encoded(),
    'progressive.jpg': encoded('.jpg', None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'restarts.jpg': encoded('.jpg', None, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    'trailing.jpg': encoded() + b'more after its end',
    'thumbnail.jpg': with_thumbnail(1),
    'plain.png': encoded('.png'),
    'grey.png': encoded('.png', colours()[..., 0]),
    'grey.jpg': encoded('.jpg', colours()[..., 0]),
    'deep.png': encoded('.png', colours().astype(np.uint16) * 257),
    'alpha.png': encoded('.png', np.dstack([colours(), colours()[..., 0]])),
    'palette.png': by_pillow(Image.fromarray(colours()).convert('P'), 'PNG'),
    'cmyk.jpg': by_pillow(Image.fromarray(colours()[..., ::-1]).convert('CMYK'), quality=95),
    'upside_down.jpg': turned(3),
    'plain.webp': encoded('.webp'),
    'plain.bmp': encoded('.bmp'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_images_stop_with_name_and_reason(repo_root, tmp_path, name):
    data, says = BAD[name]
    write_coco(tmp_path, {name: data})
    for split in ('train', 'test'):
        with pytest.raises(InputError, match=says) as caught:
            coco(repo_root, tmp_path, split)[0]
        assert f'ann.json: {tmp_path}/{name}: ' in str(caught.value)
        assert '\n' not in str(caught.value)
    if name in ('size.jpg', 'turned.jpg'):
        data_set = faces(repo_root, tmp_path, {name: data}, fmt='labelv2')
    else:
        data_set = faces(repo_root, tmp_path, {name: data})
    with pytest.raises(InputError, match=says) as caught:
        data_set[0]
    assert f'label.txt:1: {tmp_path}/E/{name}: ' in str(caught.value)


@pytest.mark.parametrize('name', GOOD)
@pytest.mark.parametrize('split', ['train', 'test'])
def test_other_images_are_read_as_colour(repo_root, tmp_path, name, split):
    write_coco(tmp_path, {name: GOOD[name]})
    (data,) = coco(repo_root, tmp_path, split)
    assert data['inputs'].shape[0] == 3
    assert data['inputs'].dtype == torch.uint8
    assert data['data_samples'].ori_shape == (HEIGHT, WIDTH)
    face = faces(repo_root, tmp_path, {name: GOOD[name]}, split)[0]
    assert face['inputs'].shape[0] == 3


def test_an_image_annotated_as_stored_is_read_as_stored(repo_root, tmp_path):
    write_coco(tmp_path, {'turned.jpg': turned(8)})
    cfg = copy.deepcopy(config(repo_root / COCO).train_dataloader.dataset.pipeline)
    cfg[0]['color_type'] = 'color_ignore_orientation'
    assert coco(repo_root, tmp_path, pipeline=cfg)[0]['data_samples'].ori_shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(('width', 'height'), [(1, 1), (20000, 20), (2, 1)])
@pytest.mark.parametrize('split', ['train', 'test'])
def test_extreme_sizes_are_read(repo_root, tmp_path, width, height, split):
    files = {'x.png': encoded('.png', colours(height, width))}
    write_coco(tmp_path, files, {'x.png': (height, width)})
    images = coco(repo_root, tmp_path, split, COCO_1X, filter_cfg=None)
    face = faces(repo_root, tmp_path, files, split)
    assert len(images) == 1
    for _ in range(6):  # Flipped and not.
        assert min(images[0]['inputs'].shape) >= 1
        assert min(face[0]['inputs'].shape) >= 1


def test_an_image_too_flat_to_be_resized_is_named(repo_root, tmp_path):
    write_coco(tmp_path, {'x.png': encoded('.png', colours(1, 4000))}, {'x.png': (1, 4000)})
    with pytest.raises(BadImageError, match=r'x\.png: cannot be decoded or transformed'):
        coco(repo_root, tmp_path)[0]


def test_skip_takes_other_images_and_tells(repo_root, tmp_path):
    files = {name: data for name, (data, _) in BAD.items()}
    write_coco(tmp_path, {**files, 'plain.jpg': GOOD['plain.jpg']})
    np.random.seed(0)
    dataset = coco(repo_root, tmp_path, bad_images='skip')
    data = [dataset[index] for index in range(len(BAD))]
    assert all(d['data_samples'].img_path.endswith('plain.jpg') for d in data)
    seen = {path for d in data for path, _ in d['data_samples'].get(SKIPPED)}
    assert seen == {f'{tmp_path}/{name}' for name in BAD}
    assert SKIPPED not in dataset[len(BAD)]['data_samples']


def test_skip_counts_over_data_workers(repo_root, tmp_path):
    files = {name: data for name, (data, _) in BAD.items()}
    write_coco(tmp_path, {**files, 'plain.jpg': GOOD['plain.jpg']})
    dataset = coco(repo_root, tmp_path, bad_images='skip')
    from mmengine.dataset import pseudo_collate

    hook = BadImageHook(most_named=3)
    for batch in DataLoader(dataset, 3, num_workers=2, collate_fn=pseudo_collate):
        hook.after_train_iter(None, 0, batch)
    lines = logged(hook.after_train)
    assert lines[0] == f'{len(BAD)} images were left out of training'
    assert len(lines) == 4
    assert lines[1].startswith(f'left out: {tmp_path}/cut.bmp: ')
    # They do not count for the next training.
    assert logged(hook.after_train) == ['0 images were left out of training']


def logged(report):
    lines = []

    class Runner:
        logger = logging.Logger('test')

    Runner.logger.addHandler(
        type('H', (logging.Handler,), {'emit': lambda s, r: lines.append(r.getMessage())})()
    )
    report(Runner)
    return lines


def test_only_bad_images_end_in_an_error_and_not_in_a_loop(repo_root, tmp_path):
    write_coco(tmp_path, {'missing.jpg': None})
    dataset = coco(repo_root, tmp_path, bad_images='skip', max_refetch=5)
    with pytest.raises(InputError, match=r'none of 6 images tried.*missing'):
        dataset[0]


def test_policies(repo_root, tmp_path):
    write_coco(tmp_path, {'plain.jpg': GOOD['plain.jpg']})
    with pytest.raises(InputError, match="bad_images: 'ignore'"):
        coco(repo_root, tmp_path, bad_images='ignore')
    with pytest.raises(InputError, match="accepted in a test: 'stop'"):
        coco(repo_root, tmp_path, 'test', bad_images='skip')


def test_the_error_passes_between_processes():
    error = BadImageError('a.jpg', 'an empty file', 'accepted: a whole image')
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_real_images_are_whole(data_root):
    for path in [*data_root.rglob('*.jpg')]:
        assert truncation(path.read_bytes()) == '', path


def test_whatever_is_cut_off_is_seen():
    for data in (encoded(), GOOD['progressive.jpg'], GOOD['restarts.jpg'], with_thumbnail(1)):
        ends = [kept for kept in range(2, len(data)) if not truncation(data[:kept])]
        assert ends == []
