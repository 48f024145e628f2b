"""What the documentation's commands find: a clone, small data, and weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
from doc_pages import ROOT
from mmdet.datasets import CocoDataset
from mmdet.models.backbones import ResNet
from mmdet.utils import get_test_pipeline_cfg  # noqa: F401  (mmdet registers its modules)
from mmengine.hub import get_model

sys.path.append(str(ROOT / 'tests/tools'))
from test_convert_retinaface import source_state

REAL = Path(os.environ.get('POLYNL_DATA', ROOT.parent / 'shared/data'))


def make_clone(folder: Path) -> None:
    """Copy what git would clone; the package is linked, as ``make install`` left it."""
    names = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True
    ).stdout.split('\n')
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith('polynl_mmdet/'):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / 'polynl_mmdet').symlink_to(ROOT / 'polynl_mmdet')


def draw_coco(images: Path, annotations: Path, classes: tuple[str, ...], count: int) -> None:
    """Draw rectangles with masks, in COCO's format."""
    rng = np.random.default_rng(count)
    rows, objects = [], []
    images.mkdir(parents=True)
    annotations.parent.mkdir(parents=True, exist_ok=True)
    for index in range(1, count + 1):
        image = np.full((240, 320, 3), 200, np.uint8)
        for _ in range(3):
            (x, y), (w, h) = rng.integers(0, 150, 2).tolist(), rng.integers(40, 80, 2).tolist()
            category = int(rng.integers(len(classes)))
            image[y : y + h, x : x + w] = rng.integers(0, 255, 3)
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            objects.append(
                dict(id=len(objects) + 1, image_id=index, category_id=category + 1, area=w * h,
                     bbox=[x, y, w, h], segmentation=[polygon], iscrowd=0)
            )  # fmt: skip
        cv2.imwrite(str(images / f'{index:012}.jpg'), image)
        rows.append(dict(id=index, file_name=f'{index:012}.jpg', width=320, height=240))
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    annotations.write_text(
        json.dumps(dict(images=rows, annotations=objects, categories=categories))
    )


def make_predictions(truth: Path, archive: Path, shift: int) -> None:
    """Write what a detector might find: the boxes of an annotation file, moved a little."""
    name, rows = '', {}
    for line in truth.read_text().splitlines():
        words = line.split()
        if line.endswith('.jpg'):
            name = line
            rows[name] = []
        elif len(words) == 10:
            rows[name].append([int(words[0]) + shift, *map(int, words[1:4])])
    with zipfile.ZipFile(archive, 'w') as file:
        for name, boxes in rows.items():
            lines = [' '.join(map(str, (*box, 0.9))) for box in boxes]
            stem = name[: -len('.jpg')]
            file.writestr(f'{stem}.txt', '\n'.join([Path(stem).name, str(len(boxes)), *lines]))


def make_weights(folder: Path) -> None:
    """Write stand-ins for the files that configs download, and for published RetinaFaces."""
    hub = folder / 'torch/hub/checkpoints'
    hub.mkdir(parents=True)
    torch.save(ResNet(50).state_dict(), hub / 'resnet50-0676ba61.pth')
    detector = get_model('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    torch.save(
        dict(state_dict=detector.state_dict(), meta={}),
        hub / 'mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth',
    )
    state = source_state('mobilenet')
    for level in range(3):  # Few faces: drawing thousands takes long.
        state[f'ClassHead.{level}.conv1x1.bias'] = torch.tensor([8.0, 0, 8, 0])
    torch.save(state, folder / 'mobilenet0.25_Final.pth')
    body = {f'module.{k[5:]}': v for k, v in state.items() if k.startswith('body.')}
    torch.save(dict(state_dict=body), folder / 'mobilenetV1X0.25_pretrain.tar')
    for name in ('retinaface_mobilenet025/mobilenet0.25_Final.pth',
                 'mobilenet025_imagenet/mobilenetV1X0.25_pretrain.tar'):  # fmt: skip
        if (REAL / name).exists():
            shutil.copy2(REAL / name, folder)


def make_store(folder: Path) -> Path:
    """Make what all pages share; :func:`place` links it into a page's folder."""
    coco, parts = folder / 'data/coco', folder / 'data/parts'
    for part, count in (('train', 2), ('val', 1)):
        draw_coco(
            coco / f'{part}2017', coco / f'annotations/instances_{part}2017.json',
            CocoDataset.METAINFO['classes'], count,
        )  # fmt: skip
        draw_coco(parts / part, parts / f'{part}.json', ('screw', 'nut', 'washer'), count)
    wider = folder / 'data/widerface'
    draw = [sys.executable, '-m', 'demo.draw', 'wider', wider, '--size', '160']
    subprocess.run([*draw, '--train', '2', '--val', '2'], check=True, cwd=ROOT)
    photos = sorted((wider / 'WIDER_val').rglob('*.jpg'))
    test = wider / 'WIDER_test/images/0--Test/one.jpg'
    for place in (test, folder / 'photos/one.jpg', folder / 'photos/two.jpg'):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(photos[0], place)
    (wider / 'wider_face_split/wider_face_test_filelist.txt').write_text('0--Test/one.jpg\n')
    truth = wider / 'wider_face_split/wider_face_val_bbx_gt.txt'
    make_predictions(truth, folder / 'predictions.zip', 0)
    make_predictions(truth, folder / 'others.zip', 3)
    frames = [cv2.imread(str(photo)) for photo in photos]
    video = cv2.VideoWriter(
        str(folder / 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (160, 160)
    )
    for frame in frames:
        video.write(frame)
    video.release()
    make_weights(folder)
    return folder


def place(store: Path, folder: Path) -> None:
    """Link the data into a page's folder; folders that commands write into are real."""
    for path in store.iterdir():
        if path.name == 'data':
            (folder / 'data').mkdir(exist_ok=True)
            for part in path.iterdir():
                shutil.copytree(part, folder / 'data' / part.name)
        elif path.name != 'torch':
            (folder / path.name).symlink_to(path)
