"""tools/export_onnx.py and tools/onnx_face_demo.py."""

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
from mmdet.apis import inference_detector, init_detector

from polynl_mmdet.errors import InputError

onnxruntime = pytest.importorskip('onnxruntime')
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
MOBILENET = CONFIGS / 'retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
TOY_FACES = CONFIGS / 'demo/retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider.py'
TOY_MASKS = CONFIGS / 'demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'
# What the demo must do without.
BLOCK = """
import importlib.abc, runpy, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'torch', 'mmcv', 'mmdet', 'mmengine', 'polynl_mmdet', 'onnx',
                                      'scipy', 'matplotlib', 'tqdm'}:
            raise ModuleNotFoundError(f'blocked: {name}')
sys.meta_path.insert(0, Block())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tool():
    return load_tool('export_onnx')


@pytest.fixture(scope='module')
def demo():
    return load_tool('onnx_face_demo')


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    pixels = np.random.default_rng(0).integers(0, 255, (61, 83, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def export(tool, *args):
    return tool.main(tool.parse_args([str(arg) for arg in args]))


def run_blocked(*args):
    return subprocess.run(
        [sys.executable, '-c', BLOCK, str(ROOT / 'tools/onnx_face_demo.py'), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )


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
    assert 'weights drawn at random' in printed
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


def test_sizes_of_real_use(tool, tmp_path, capsys):
    """The default sizes, with a small RetinaFace that has Poly-NL in it."""
    assert export(tool, TOY_FACES, 'none', tmp_path / 'face.onnx') == 0
    printed = capsys.readouterr().out
    for size in ('480x640', '683x1024', '1000x600'):
        assert f'generated {size}: boxes' in printed


def test_a_difference_ends_with_an_error(tool, image, tmp_path, capsys):
    out = tmp_path / 'face.onnx'
    options = ('--image', image, '--size', '64x64', '--tolerance', '-1')
    assert export(tool, MOBILENET, 'none', out, *options) == 1
    captured = capsys.readouterr()
    assert 'above -1; nothing was written' in captured.err
    assert 'image.png 64x64' in captured.err
    assert list(tmp_path.iterdir()) == [image]


def test_bad_input(tool, image, tmp_path):
    out = tmp_path / 'face.onnx'
    for args, message in (
        (('no.py', 'none', out), 'no such config'),
        ((MOBILENET, 'no.pth', out), 'No such file'),
        ((MOBILENET, 'none', tmp_path / 'no' / 'x.onnx'), 'folder that does not exist'),
        ((MOBILENET, 'none', out, '--image', MOBILENET), 'not an image'),
        ((MOBILENET, 'none', out, '--size', '64'), 'accepted: HEIGHTxWIDTH'),
    ):
        with pytest.raises(ValueError, match=message):
            export(tool, *args)
    empty = tmp_path / 'empty.pth'
    torch.save({'state_dict': {}}, empty)
    with pytest.raises(InputError, match=r'lacks \d+ weights'):
        export(tool, MOBILENET, empty, out)
    other = tmp_path / 'other.py'
    other.write_text('lr = 1')
    with pytest.raises(InputError, match='no model in it'):
        export(tool, other, 'none', out)
    assert not out.exists()


@pytest.fixture(scope='module')
def trained(tool, data_root, tmp_path_factory):
    """The real detector: its checkpoint and its ONNX file."""
    folder = tmp_path_factory.mktemp('trained')
    source = data_root / 'retinaface_mobilenet025/mobilenet0.25_Final.pth'
    if not source.is_file():
        pytest.skip(f'no real weights at {source}')
    load_tool('convert_retinaface').main([str(source), str(folder / 'model.pth')])
    image = sorted((data_root / 'wider_mini/WIDER_val').rglob('*.jpg'))[0]
    assert export(tool, MOBILENET, folder / 'model.pth', folder / 'face.onnx', '--image', image,
                  '--size', '480x640', '683x1024', '1000x600') == 0  # fmt: skip
    return folder


def test_real_detections_without_torch(trained, data_root, tmp_path):
    """Of a process that has onnxruntime, NumPy and OpenCV alone: the reference's detections."""
    images = sorted((data_root / 'wider_mini/WIDER_val').rglob('*.jpg'))
    out = tmp_path / 'faces'
    done = run_blocked(trained / 'face.onnx', *images, '--out', out, '--score-thr', '0.02')
    assert done.returncode == 0, done.stderr
    assert f'[{len(images)}/{len(images)}]' in done.stdout
    report = json.loads((out / 'faces.json').read_text())['images']
    reference = np.load(data_root / 'retinaface_mobilenet025/reference_detections.npz')
    for path in images:
        faces = report[path.name]
        found = np.array(
            [[*f['bbox'], f['score'], *np.ravel(list(f['landmarks'].values()))] for f in faces]
        )
        expected = reference[path.stem]
        assert len(found) == len(expected)
        # Equal scores have no order: each is compared with its nearest.
        distance = np.abs(found[:, None, :4] - expected[None, :, :4]).max(axis=2)
        nearest = distance.argmin(axis=1)
        assert len(set(nearest)) == len(expected)
        assert np.abs(found - expected[nearest]).max() < 0.02
        assert cv2.imread(str(out / path.name)).shape == cv2.imread(str(path)).shape


@pytest.mark.parametrize(
    ('resize', 'keep_ratio'),
    [({'scale': (300, 200)}, True), ({'scale': (90, 70)}, False), ({'scale_factor': 1.37}, True)],
)
def test_the_demo_does_what_mmdet_does(tool, demo, trained, data_root, resize, keep_ratio):
    """Resizing, the NMS and the way back to the image's pixels."""
    image = cv2.imread(str(sorted((data_root / 'wider_mini/WIDER_val').rglob('*.jpg'))[0]))
    image = cv2.resize(image, (331, 217))
    detector = init_detector(str(MOBILENET), str(trained / 'model.pth'), device='cpu')
    pipeline = detector.cfg.test_dataloader.dataset.pipeline
    pipeline[1] = dict(type='FaceResize', keep_ratio=keep_ratio, **resize)
    session, settings = demo.load(str(trained / 'face.onnx'), 1)
    settings['resize'] = tool.face_settings(detector.cfg)['resize']
    expected = inference_detector(detector, image).pred_instances
    boxes, scores, points = demo.detect(session, settings, image)
    assert len(expected) > 0
    np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(boxes, expected.bboxes, atol=1e-2)
    np.testing.assert_allclose(points, expected.keypoints, atol=1e-2)


def test_the_demo_names_bad_input(tool, image, tmp_path):
    pyramid = tmp_path / 'pyramid.onnx'
    assert export(tool, TOY_MASKS, 'none', pyramid, '--size', '64x64') == 0
    text = tmp_path / 'text.onnx'
    text.write_text('no model')
    for model, message in (
        (tmp_path / 'none.onnx', 'no such file'),
        (text, 'onnxruntime cannot load it'),
        (pyramid, 'no face detector'),
    ):
        done = run_blocked(model, image, '--out', tmp_path / 'out')
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    done = run_blocked(pyramid, image, '--out', tmp_path)
    assert 'accepted: another folder' in done.stderr
    done = run_blocked(pyramid, image, image, '--out', tmp_path / 'out')
    assert 'several images are called image.png' in done.stderr


@pytest.mark.parametrize('name', ['export_onnx', 'onnx_face_demo'])
def test_what_is_missing_is_named(name):
    code = (
        "import runpy, sys; sys.modules['onnxruntime'] = None; "
        f"runpy.run_path({str(ROOT / f'tools/{name}.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith('error: onnxruntime is missing; pip install')
    )
