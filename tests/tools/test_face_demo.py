"""tools/face_demo.py on images, folders, videos and bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('onnxruntime')
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
MARKS = ['left_eye', 'right_eye', 'nose', 'left_mouth', 'right_mouth']
# What an ONNX file does not need.
BLOCKED = ('torch', 'mmcv', 'mmdet', 'mmengine', 'onnx', 'scipy', 'matplotlib', 'pycocotools')


@pytest.fixture(scope='module')
def model(tool_server, data_root, tmp_path_factory):
    """Folder with the real detector, as checkpoint and as ONNX file."""
    folder = tmp_path_factory.mktemp('model')
    weights = data_root / 'retinaface_mobilenet025/mobilenet0.25_Final.pth'
    for argv in (
        ['convert_retinaface.py', weights, folder / 'face.pth'],
        ['export_onnx.py', CONFIG, folder / 'face.pth', folder / 'face.onnx', '--size', '97x130'],
    ):
        argv[0] = ROOT / 'tools' / argv[0]
        status, output = tool_server.run(list(map(str, argv)), cwd=str(ROOT))
        assert status == 0, output
    return folder


@pytest.fixture(scope='module')
def photo(data_root):
    """A real image with four faces."""
    folder = data_root / 'wider_mini/WIDER_val/images/22--Picnic'
    path = folder / '22_Picnic_Picnic_22_10.jpg'
    return path if path.is_file() else sorted(folder.glob('*.jpg'))[0]


def test_folder_files_crops_and_json_without_torch(model, photo, tmp_path):
    """Also a photo of three times the size, which --max-size 1024, the default, shrinks."""
    image = cv2.imread(str(photo))
    folder, out = tmp_path / 'photos', tmp_path / 'out'
    (folder / 'sub').mkdir(parents=True)
    cv2.imwrite(str(folder / 'a.png'), image)
    cv2.imwrite(str(folder / 'large.png'), cv2.resize(image, None, fx=3, fy=3))
    cv2.imwrite(str(folder / 'sub/b.bmp'), image[:, ::-1])
    (folder / 'broken.jpg').write_text('not an image')
    (folder / 'notes.txt').write_text('no image either')
    code = (
        f'import runpy, sys; sys.modules.update(dict.fromkeys({BLOCKED})); '
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [sys.executable, '-c', code, ROOT / 'tools/face_demo.py', folder, photo,
             model / 'face.onnx', '--out', out, '--save-json', '--save-crops']  # fmt: skip
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert f'skipped: {folder}/broken.jpg' in done.stdout + done.stderr
    assert '5/5' in done.stderr  # Progress.
    report = json.loads((out / 'faces.json').read_text())
    assert sorted(report) == sorted(['a.png', 'large.png', 'sub/b.bmp', photo.name])
    faces = report['a.png']
    assert len(faces) == len(report['large.png']) >= 3
    for face, large in zip(faces, report['large.png']):
        assert list(face['landmarks']) == MARKS
        assert 0.5 <= face['score'] <= 1
        x1, y1, x2, y2 = face['bbox']
        nose = face['landmarks']['nose']
        assert x1 - 5 < nose[0] < x2 + 5
        assert y1 < nose[1] < y2
        np.testing.assert_allclose(np.array(large['bbox']) / 3, face['bbox'], atol=4)
    for name in ('a.png', 'sub/b.bmp.jpg', photo.name):
        assert cv2.imread(str(out / name)).shape == image.shape
    assert not np.array_equal(cv2.imread(str(out / 'a.png')), image)
    crops = sorted((out / 'crops').glob('a.png_*.png'))
    assert len(crops) == len(faces)
    assert cv2.imread(str(crops[0])).shape == (112, 112, 3)


def test_files_of_one_name_and_a_checkpoint(run_tool, model, photo, tmp_path):
    reports = []
    for weights in ((CONFIG, model / 'face.pth'), (model / 'face.onnx',)):
        out = tmp_path / weights[-1].name
        for folder in ('cam1', 'cam2'):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / '1.jpg').write_bytes(photo.read_bytes())
        done = run_tool('face_demo.py', tmp_path / 'cam1/1.jpg', tmp_path / 'cam2', *weights,
                        '--out', out, '--save-json')  # fmt: skip
        assert done.returncode == 0, done.stdout
        reports.append(json.loads((out / 'faces.json').read_text()))
        assert list(reports[-1]) == ['cam1/1.jpg', 'cam2/1.jpg']
        assert reports[-1]['cam1/1.jpg'] == reports[-1]['cam2/1.jpg']
    for face, exported in zip(*(report['cam1/1.jpg'] for report in reports)):
        np.testing.assert_allclose(exported['bbox'], face['bbox'], atol=0.05)


def test_video(run_tool, model, photo, tmp_path):
    """A camera that moves over a real photo: the drawn video has its frames, size and faces."""
    image = cv2.imread(str(photo))
    height, width = image.shape[:2]
    size = (width * 3 // 4, height * 3 // 4)
    path = tmp_path / 'walk.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 12, size)
    for number in range(7):
        x, y = number * (width - size[0]) // 7, number * (height - size[1]) // 7
        writer.write(image[y : y + size[1], x : x + size[0]])
    writer.release()
    out = tmp_path / 'out'
    done = run_tool('face_demo.py', path, model / 'face.onnx', '--out', out, '--save-json',
                    '--save-crops', '--max-frames', 5)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert '5/5' in done.stdout
    report = json.loads((out / 'faces.json').read_text())
    assert list(report) == [f'walk.avi/{number:06d}' for number in range(5)]
    assert all(report.values())
    video = cv2.VideoCapture(str(out / 'walk.mp4'))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert video.read()[1].shape == (size[1], size[0], 3)
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert (out / 'crops/walk.avi/000000_0.png').is_file()


def test_bad_input(run_tool, model, photo, data_root, tmp_path):
    raw = data_root / 'retinaface_mobilenet025/mobilenet0.25_Final.pth'
    onnx, broken, empty = model / 'face.onnx', tmp_path / 'broken.jpg', tmp_path / 'empty'
    broken.write_text('no image')
    empty.mkdir()
    other = tmp_path / 'other.onnx'
    other.write_text('no model')
    for args, words in (
        ((tmp_path / 'none.jpg', onnx), 'no such file or folder'),
        ((photo, tmp_path / 'none.onnx'), 'none.onnx: no such file'),
        ((photo, CONFIG, raw), 'by tools/convert_retinaface.py'),
        ((photo, other), 'onnxruntime cannot load it'),
        ((empty, onnx), 'no image or video below it'),
        ((9, onnx), 'none of 9 can be read'),
        ((photo, 'model.pth'), 'expected MODEL.onnx, or CONFIG.py and CHECKPOINT'),
        ((photo, onnx, '--out', photo.parent), 'would replace'),
    ):
        done = run_tool('face_demo.py', '--out', tmp_path / 'out', *args)
        assert done.returncode == 2, done.stdout
        last = done.stdout.strip().splitlines()[-1]
        assert 'error: ' in last
        assert words in last
