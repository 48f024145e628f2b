"""FaceDetector on real images with real weights, as an ONNX file and as a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from polynl_mmdet.deploy import FaceDetector, align_faces
from polynl_mmdet.deploy.face_detector import ARCFACE_TEMPLATE

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'


@pytest.fixture(scope='module')
def model(tool_server, data_root, tmp_path_factory):
    """Folder with the converted detector as checkpoint and as ONNX file."""
    pytest.importorskip('onnxruntime')
    folder = tmp_path_factory.mktemp('model')
    weights = data_root / 'retinaface_mobilenet025/mobilenet0.25_Final.pth'
    for argv in (
        ['tools/convert_retinaface.py', weights, folder / 'face.pth'],
        ['tools/export_onnx.py', CONFIG, folder / 'face.pth', folder / 'face.onnx'],
    ):
        status, output = tool_server.run(
            argv=list(map(str, argv)), cwd=str(ROOT), env={}, timeout=100
        )
        assert status == 0, output
    return folder


@pytest.fixture(scope='module')
def images(data_root):
    return sorted((data_root / 'wider_mini/WIDER_val/images/22--Picnic').glob('*.jpg'))


def as_rows(faces):
    return np.concatenate(
        [faces.boxes, faces.scores[:, None], faces.landmarks.reshape(len(faces.boxes), -1)], axis=1
    )


@pytest.mark.parametrize('kind', ['onnx', 'checkpoint'])
def test_the_reference_detections(model, images, data_root, kind):
    """761 detections of the implementation that the weights come from; in batches of one size."""
    args = [model / 'face.onnx'] if kind == 'onnx' else [CONFIG, model / 'face.pth']
    detections = FaceDetector(*args, score_thr=0.02, max_size=None)(images)
    reference = np.load(data_root / 'retinaface_mobilenet025/reference_detections.npz')
    assert sum(len(faces.scores) for faces in detections) == 761
    for path, faces in zip(images, detections):
        expected = reference[path.stem]
        expected = expected[np.argsort(-expected[:, 4], kind='stable')]
        np.testing.assert_allclose(as_rows(faces), expected, atol=2e-3)


def test_one_image_file_gray_and_lists(model, images):
    detector = FaceDetector(model / 'face.onnx')
    image = cv2.imread(str(images[0]))
    alone = detector(image)
    assert alone.boxes.shape == (4, 4)
    assert alone.landmarks.shape == (4, 5, 2)
    assert (alone.scores[:-1] >= alone.scores[1:]).all()
    for faces in (detector(str(images[0])), *detector([image, images[1], images[0]])[::2]):
        np.testing.assert_allclose(as_rows(faces), as_rows(alone), atol=1e-3)
    assert len(detector(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)).boxes) >= 2
    assert detector(np.zeros((40, 30, 3), np.uint8)).landmarks.shape == (0, 5, 2)
    assert detector([]) == []


def test_a_close_up_is_downscaled(model, images):
    """One face across 1,000 pixels: larger than any anchor."""
    image = cv2.imread(str(images[-1]))
    detector = FaceDetector(model / 'face.onnx', score_thr=0.9)
    box = max(detector(image).boxes.tolist(), key=lambda box: box[2] - box[0])
    left, top, right, bottom = map(int, box)
    width, height = right - left, bottom - top
    crop = image[
        max(top - height // 2, 0) : bottom + height // 2, max(left - width, 0) : right + width
    ]
    closeup = cv2.resize(crop, None, fx=1000 / width, fy=1000 / width)
    whole = FaceDetector(model / 'face.onnx', score_thr=0.9, max_size=None)(closeup)
    boxes = detector(closeup).boxes
    assert len(whole.boxes) > len(boxes) == 1
    assert 800 < boxes[0, 2] - boxes[0, 0] < 1200


def test_aligned_crops():
    """The least-squares similarity (Umeyama, 1991)."""
    rng = np.random.default_rng(0)
    angle, scale = 0.4, 2.5
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ARCFACE_TEMPLATE @ rotation.T + (180, 150) + rng.normal(0, 10, (5, 2))
    source, target = points - points.mean(0), ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)
    u, s, vt = np.linalg.svd(target.T @ source)
    matrix = u @ vt * s.sum() / (source**2).sum()
    shift = ARCFACE_TEMPLATE.mean(0) - matrix @ points.mean(0)
    image = rng.integers(0, 255, (600, 700, 3), np.uint8)
    expected = cv2.warpAffine(image, np.c_[matrix, shift], (112, 112))
    assert (align_faces(image, points[None])[0] == expected).mean() > 0.99
    assert align_faces(image, points[None], size=224).shape == (1, 224, 224, 3)


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (np.zeros((8, 8, 4), np.uint8), 'expected uint8'),
        (np.zeros((8, 8, 3)), 'expected uint8'),
        (CONFIG, 'cannot be read as an image'),
    ],
)
def test_bad_images_are_named(model, image, words):
    with pytest.raises(ValueError, match=words):
        FaceDetector(model / 'face.onnx')(image)


def test_onnx_needs_no_torch_and_no_mmdet(model, images):
    hidden = ('torch', 'mmengine', 'mmcv', 'mmdet', 'scipy', 'matplotlib')
    code = (
        f'import sys; sys.modules.update(dict.fromkeys({hidden}))\n'
        'from polynl_mmdet.deploy import FaceDetector\n'
        f'print(len(FaceDetector({str(model / "face.onnx")!r})({str(images[0])!r}).boxes))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout == '4\n', done.stderr
