"""tools/face_demo.py on images good and bad."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from polynl_mmdet.errors import InputError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('face_demo', ROOT / 'tools/face_demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A detector that was never trained: half of its anchors are faces to it."""
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.init_weights()
    path = tmp_path_factory.mktemp('weights') / 'model.pth'
    meta = {'dataset_meta': {'classes': ('face',), 'palette': [(220, 20, 60)]}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    (folder / 'sub').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ('a.png', 'a.jpg', 'sub/b.BMP'):
        cv2.imwrite(str(folder / name.lower()), rng.integers(0, 255, (70, 90, 3), np.uint8))
    (folder / 'sub/b.bmp').rename(folder / 'sub/b.BMP')
    (folder / 'broken.jpg').write_text('not an image')
    (folder / 'notes.txt').write_text('no image either')
    return folder


def test_folder(tool, checkpoint, images, tmp_path, capsys):
    out = tmp_path / 'out'
    tool.main([str(images), str(CONFIG), str(checkpoint), '--out', str(out), '--score-thr', '0.3'])
    report = json.loads((out / 'faces.json').read_text())
    assert sorted(report['images']) == ['a.jpg', 'a.png', 'sub/b.BMP']
    assert report['unreadable'] == ['broken.jpg']
    captured = capsys.readouterr()
    assert 'broken.jpg' in captured.out + captured.err
    assert '4/4' in captured.err  # progress
    faces = [face for found in report['images'].values() for face in found]
    assert faces
    for face in faces:
        assert len(face['bbox']) == 4
        assert face['score'] >= 0.3
        assert list(face['landmarks']) == [
            'left_eye',
            'right_eye',
            'nose',
            'left_mouth',
            'right_mouth',
        ]
    for name in ('a.jpg', 'a.png', 'sub/b.BMP.jpg'):
        drawn = cv2.imread(str(out / name))
        assert drawn.shape == (70, 90, 3)


def test_one_image(tool, checkpoint, images, tmp_path):
    out = tmp_path / 'out'
    tool.main([str(images / 'a.png'), str(CONFIG), str(checkpoint), '--out', str(out)])
    assert list(json.loads((out / 'faces.json').read_text())['images']) == ['a.png']


def test_bad_input(tool, checkpoint, images, tmp_path):
    def run(source=images, config=CONFIG, weights=checkpoint, out=tmp_path / 'out'):
        tool.main([str(source), str(config), str(weights), '--out', str(out)])

    with pytest.raises(InputError, match='no such file or folder'):
        run(source=tmp_path / 'none')
    with pytest.raises(InputError, match='no such file'):
        run(weights=tmp_path / 'none.pth')
    with pytest.raises(InputError, match='another folder'):
        run(out=images)
    with pytest.raises(InputError, match='none of 1 images can be read'):
        run(source=images / 'broken.jpg')
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(InputError, match='no images below it'):
        run(source=empty)
    other = tmp_path / 'other.py'
    other.write_text("model = dict(type='RetinaNet')")
    with pytest.raises(InputError, match='a RetinaNet; accepted: a RetinaFace config'):
        run(config=other)
