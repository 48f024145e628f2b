"""What the documentation's commands find: a clone, small data, and weights."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
from doc_pages import ROOT
from mmdet.datasets import CocoDataset
from mmdet.models.backbones import ResNet
from mmdet.utils import register_all_modules
from mmengine.hub import get_model

from demo.files import write_coco
from demo.toy_wider import make_toy_wider

sys.path.append(str(ROOT / 'tests/tools'))
from test_convert_retinaface import source_state

REAL = Path(os.environ.get('POLYNL_DATA', ROOT.parent / 'shared/data'))


def make_clone(folder: Path) -> None:
    """Copy what git would clone; the package is linked, as ``make install`` left it."""
    skip = shutil.ignore_patterns('.*', 'polynl_mmdet', 'data', 'work_dirs', '*.pth', '__pycache__')
    shutil.copytree(ROOT, folder, ignore=skip, dirs_exist_ok=True)
    (folder / 'polynl_mmdet').symlink_to(ROOT / 'polynl_mmdet')


def make_store(folder: Path) -> Path:
    """Make what all pages share; :func:`place` puts it into a page's folder."""
    make_coco(folder / 'data/coco', CocoDataset.METAINFO['classes'], '{}2017')
    make_coco(folder / 'data/parts', ('screw', 'nut', 'washer'), '{}')
    wider = folder / 'data/widerface'
    make_toy_wider(wider, train=2, val=2, size=160)
    photos = [cv2.imread(str(path)) for path in sorted((wider / 'WIDER_val').rglob('*.jpg'))]
    for name in ('photos/one.jpg', 'photos/two.jpg', 'data/widerface/WIDER_test/images/0--T/1.jpg'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), photos[0])
    (wider / 'wider_face_split/wider_face_test_filelist.txt').write_text('0--T/1.jpg\n')
    codec = cv2.VideoWriter_fourcc(*'mp4v')
    video = cv2.VideoWriter(str(folder / 'clip.mp4'), codec, 5, (160, 160))
    for photo in photos:
        video.write(photo)
    video.release()
    for name, score in (('predictions.zip', 0.9), ('others.zip', 0.8)):
        with zipfile.ZipFile(folder / name, 'w') as file:
            for photo in (wider / 'WIDER_val').rglob('*.jpg'):
                text = f'{photo.stem}\n1\n20 20 40 40 {score}\n'
                file.writestr(f'{photo.parent.name}/{photo.stem}.txt', text)
    make_weights(folder)
    return folder


def make_coco(folder: Path, classes: tuple[str, ...], split: str) -> None:
    """Draw a data set with masks; ``split`` is COCO's name of a part, such as '{}2017'."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
        image, mask = np.full((240, 320, 3), 200, np.uint8), np.zeros((240, 320), np.uint8)
        image[50:150, 80:200], mask[50:150, 80:200] = rng.integers(0, 255, 3), 1
        return image, [(int(rng.integers(len(classes))), mask)]

    folder.mkdir(parents=True)
    write_coco(folder, (2, 1), 0, classes, draw)
    for part in ('train', 'val'):
        name = split.format(part)
        (folder / part).rename(folder / name)
        annotations = folder / f'annotations/instances_{part}.json'
        annotations.rename(folder / f'annotations/instances_{name}.json')


def make_weights(folder: Path) -> None:
    """Write stand-ins for what configs download, and RetinaFace's published files or stand-ins."""
    hub = folder / 'torch/hub/checkpoints'
    hub.mkdir(parents=True)
    register_all_modules()
    torch.save(ResNet(50).state_dict(), hub / 'resnet50-0676ba61.pth')
    detector = get_model('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').state_dict()
    torch.save(dict(state_dict=detector), hub / 'mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth')
    state = source_state('mobilenet')
    for level in range(3):  # Few faces: drawing thousands takes long.
        state[f'ClassHead.{level}.conv1x1.bias'] = torch.tensor([8.0, 0, 8, 0])
    torch.save(state, folder / 'mobilenet0.25_Final.pth')
    body = {f'module.{k[5:]}': v for k, v in state.items() if k.startswith('body.')}
    torch.save(dict(state_dict=body), folder / 'mobilenetV1X0.25_pretrain.tar')
    for path in [*REAL.glob('retinaface_mobilenet025/*.pth'), *REAL.glob('mobilenet025*/*.tar')]:
        shutil.copy2(path, folder)


def place(store: Path, folder: Path) -> None:
    """Copy the data, into which commands write, and link the rest."""
    shutil.copytree(store / 'data', folder / 'data')
    for path in store.iterdir():
        if path.name not in ('data', 'torch'):
            (folder / path.name).symlink_to(path)
