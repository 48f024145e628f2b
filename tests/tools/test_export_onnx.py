"""tools/export_onnx.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

onnxruntime = pytest.importorskip('onnxruntime')
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
MOBILENET = CONFIGS / 'retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
TOY_FACES = CONFIGS / 'demo/retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider.py'
TOY_MASKS = CONFIGS / 'demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tool():
    return load_tool('export_onnx')


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    pixels = np.random.default_rng(0).integers(0, 255, (61, 83, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def export(tool, *args):
    return tool.main(tool.parse_args([str(arg) for arg in args]))


@pytest.mark.parametrize(
    ('config', 'levels'),
    [
        (TOY_MASKS, 4),
        (CONFIGS / 'mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py', 5),
        (CONFIGS / 'mask_rcnn/mask-rcnn_r50-spatial-bias-c2-c4_fpn_1x_coco.py', 5),
        (CONFIGS / 'retinanet/retinanet_r50-polynl-c3-c5_fpn_1x_coco.py', 5),
    ],
)
def test_backbone_and_neck(tool, config, levels, tmp_path, capsys):
    out = tmp_path / 'pyramid.onnx'
    assert export(tool, config, 'none', out, '--size', '96x128', '75x110', '33x50') == 0
    printed = capsys.readouterr().out
    assert 'generated' in printed
    assert 'random weights' in printed
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    assert len(session.get_outputs()) == levels
    settings = json.loads(session.get_modelmeta().custom_metadata_map['polynl_mmdet'])
    strides = [level['stride'] for level in settings['levels']]
    assert strides == [2 ** (i + (3 if 'retinanet' in config.name else 2)) for i in range(levels)]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 3, 60, 200)).astype(np.float32)
    first = session.run(None, {'image': pixels})[0]
    assert first.shape == (
        2,
        settings['levels'][0]['channels'],
        64 // strides[0],
        224 // strides[0],
    )


def test_a_difference_ends_with_an_error(tool, image, tmp_path, capsys):
    out = tmp_path / 'face.onnx'
    options = ('--image', image, '--size', '64x64', '--tolerance', '-1')
    assert export(tool, MOBILENET, 'none', out, *options) == 1
    captured = capsys.readouterr()
    assert 'above -1; nothing was written' in captured.err
    assert 'image.png 64x64' in captured.err
    assert list(tmp_path.iterdir()) == [image]


def test_bad_input(tool, image, data_root, tmp_path):
    out = tmp_path / 'face.onnx'
    raw = data_root / 'retinaface_mobilenet025/mobilenet0.25_Final.pth'
    empty = tmp_path / 'empty.pth'
    torch.save({'state_dict': {}}, empty)
    other = tmp_path / 'other.py'
    other.write_text('lr = 1')
    for args, message in (
        (('no.py', 'none', out), 'no such config'),
        ((MOBILENET, 'no.pth', out), 'No such file'),
        ((MOBILENET, 'none', tmp_path / 'no' / 'x.onnx'), 'folder that does not exist'),
        ((MOBILENET, 'none', out, '--image', MOBILENET), 'not an image'),
        ((MOBILENET, 'none', out, '--size', '64'), 'expected HEIGHTxWIDTH'),
        ((MOBILENET, raw, out), r'fits 0 of the .*tools/convert_retinaface\.py'),
        ((MOBILENET, empty, out), 'fits 0 of the'),
        ((other, 'none', out), 'got no model'),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            export(tool, *args)
        assert '\n' not in str(caught.value)
    assert not out.exists()


def test_a_checkpoint_that_lacks_some_weights(tool, tmp_path):
    """More than half is there, and yet an exported detector would be wrong."""
    detector = tool.build(str(MOBILENET), 'none', None)[1]
    state = detector.state_dict()
    state.pop('neck.1.levels.0.conv3x3.conv.weight')
    torch.save({'state_dict': state}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='1 weights of the model are missing'):
        export(tool, MOBILENET, tmp_path / 'x.pth', tmp_path / 'face.onnx')


def test_names_of_other_landmarks_are_in_the_file(tool, tmp_path):
    names = ['top_left', 'top_right', 'bottom_right', 'bottom_left']
    out = tmp_path / 'plates.onnx'
    assert export(tool, MOBILENET, 'none', out, '--size', '64x96', '--cfg-options',
                  'model.bbox_head.landmark_coder.type=LandmarkCoder',
                  'model.bbox_head.landmark_coder.num_points=4',
                  f'test_dataloader.dataset.metainfo.landmarks={",".join(names)}') == 0  # fmt: skip
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    settings = json.loads(session.get_modelmeta().custom_metadata_map['polynl_mmdet'])
    assert settings['landmarks'] == names
    pixels = np.zeros((2, 3, 64, 64), np.float32)
    assert session.run(['landmarks'], {'image': pixels})[0].shape[2:] == (4, 2)


def test_what_is_missing_is_named():
    code = (
        "import runpy, sys; sys.modules['onnxruntime'] = None; sys.argv[1:] = 'abc'; "
        f"runpy.run_path({str(ROOT / 'tools/export_onnx.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'error: onnxruntime is missing; pip install' in done.stderr.splitlines()[-1]
