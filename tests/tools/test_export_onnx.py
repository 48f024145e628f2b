"""tools/export_onnx.py."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tools import export_onnx

onnxruntime = pytest.importorskip('onnxruntime')
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
MOBILENET = CONFIGS / 'retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'


def export(*args):
    return export_onnx.main(export_onnx.parse_args(list(map(str, args))))


def read(path):
    """The session of a file, and the settings stored in it."""
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session, json.loads(session.get_modelmeta().custom_metadata_map['polynl_mmdet'])


@pytest.mark.parametrize(
    ('config', 'levels', 'first_stride'),
    [
        ('demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py', 4, 4),
        ('mask_rcnn/mask-rcnn_r50-spatial-bias-c2-c4_fpn_1x_coco.py', 5, 4),
    ],
)
def test_backbone_and_neck(config, levels, first_stride, tmp_path, capsys):
    out = tmp_path / 'pyramid.onnx'
    assert export(CONFIGS / config, 'none', out, '--size', '96x128', '75x110', '33x50') == 0
    assert 'random weights' in capsys.readouterr().out
    session, settings = read(out)
    strides = [level['stride'] for level in settings['levels']]
    assert strides == [first_stride * 2**level for level in range(levels)]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 3, 60, 200)).astype(np.float32)
    maps = session.run(None, {'image': pixels})
    assert len(maps) == levels
    channels = settings['levels'][0]['channels']
    assert maps[0].shape == (2, channels, 64 // first_stride, 224 // first_stride)


def test_a_difference_ends_with_an_error(tmp_path, capsys):
    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (61, 83, 3), np.uint8))
    options = ('--image', image, '--size', '64x64', '--tolerance', '-1')
    assert export(MOBILENET, 'none', tmp_path / 'face.onnx', *options) == 1
    captured = capsys.readouterr()
    assert 'above -1; nothing was written' in captured.err
    assert 'image.png 64x64' in captured.err
    assert list(tmp_path.iterdir()) == [image]


def test_bad_input(data_root, tmp_path):
    out = tmp_path / 'face.onnx'
    raw = data_root / 'retinaface_mobilenet025/mobilenet0.25_Final.pth'
    incomplete, other = tmp_path / 'incomplete.pth', tmp_path / 'other.py'
    # More than half is there, and yet an exported detector would be wrong.
    state = export_onnx.build(str(MOBILENET), 'none', None)[1].state_dict()
    state.pop('neck.1.levels.0.conv3x3.conv.weight')
    torch.save({'state_dict': state}, incomplete)
    other.write_text('lr = 1')
    for args, message in (
        (('no.py', 'none', out), 'no such config'),
        ((MOBILENET, 'no.pth', out), 'No such file'),
        ((MOBILENET, 'none', tmp_path / 'no' / 'x.onnx'), 'folder that does not exist'),
        ((MOBILENET, 'none', out, '--image', MOBILENET), 'not an image'),
        ((MOBILENET, 'none', out, '--size', '64'), 'expected HEIGHTxWIDTH'),
        ((MOBILENET, raw, out), r'fits 0 of the .*tools/convert_retinaface\.py'),
        ((MOBILENET, incomplete, out), '1 weights of the model are missing'),
        ((other, 'none', out), 'got no model'),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            export(*args)
        assert '\n' not in str(caught.value)
    assert not out.exists()


def test_names_of_other_landmarks_are_in_the_file(tmp_path):
    names, coder = ['top_left', 'top_right', 'bottom_right'], 'model.bbox_head.landmark_coder'
    options = ('--size', '64x96', '--cfg-options', f'{coder}.type=LandmarkCoder',
               f'{coder}.num_points=3',
               f'test_dataloader.dataset.metainfo.landmarks={",".join(names)}')  # fmt: skip
    assert export(MOBILENET, 'none', tmp_path / 'plates.onnx', *options) == 0
    session, settings = read(tmp_path / 'plates.onnx')
    assert settings['landmarks'] == names
    pixels = np.zeros((2, 3, 64, 64), np.float32)
    assert session.run(['landmarks'], {'image': pixels})[0].shape[2:] == (3, 2)


def test_what_is_missing_is_named(tool_server):
    code = (
        "import runpy, sys; sys.modules['onnxruntime'] = None; sys.argv[1:] = 'abc'; "
        "runpy.run_path('tools/export_onnx.py', run_name='__main__')"
    )
    status, output = tool_server.run(['-c', code], cwd=str(ROOT))
    assert status == 1
    assert 'error: onnxruntime is missing; pip install' in output.splitlines()[-1]
