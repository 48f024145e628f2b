"""mmdet's own ways to run a detector, on every config of this package."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config

from polynl_mmdet.visualization.face_visualizer import COLOURS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


def small(path):
    """The config, with images tested at 64 x 64."""
    cfg = Config.fromfile(path)
    for step in cfg.test_dataloader.dataset.pipeline:
        if 'Resize' in step['type']:
            step.pop('scale_factor', None)
            step.update(scale=(64, 64), keep_ratio=True)
    return cfg


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_init_detector(path, image):
    detector = init_detector(small(path), device='cpu')
    found = inference_detector(detector, str(image)).pred_instances
    assert found.bboxes.shape == (len(found), 4)
    if path.name.startswith('retinaface'):
        assert found.keypoints.shape == (len(found), 5, 2)
    elif path.name.startswith('mask-rcnn'):
        assert found.masks.shape == (len(found), 90, 120)


@pytest.mark.parametrize(
    'name',
    [
        'retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py',
        'demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py',
        'retinanet/retinanet_r50-polynl-c3-c5_fpn_1x_coco.py',
    ],
)
def test_det_inferencer(name, image, tmp_path):
    inferencer = DetInferencer(small(ROOT / 'configs' / name), device='cpu', show_progress=False)
    result = inferencer(str(image), return_datasamples=True, no_save_vis=True)
    scores = result['predictions'][0].pred_instances.scores.sort(descending=True).values
    # The few best, or their drawings would cover each other.
    threshold = float(scores[min(4, len(scores) - 1)]) - 1e-6 if len(scores) else 0.0
    out = tmp_path / 'out'
    result = inferencer(
        str(image), out_dir=str(out), pred_score_thr=threshold, return_datasamples=True
    )
    found = result['predictions'][0].pred_instances
    found = found[found.scores > threshold]
    drawn = cv2.imread(str(out / 'vis/image.png'))
    assert drawn.shape == (90, 120, 3)
    if len(found):
        assert np.abs(drawn.astype(int) - cv2.imread(str(image))).max() > 40
    if name.startswith('retinaface'):
        assert shown_landmarks(drawn[..., ::-1].astype(int), found.keypoints.numpy()) > 0


def shown_landmarks(image, keypoints):
    """How many landmarks have their colour where they are, in an RGB image."""
    count = 0
    for point, colour in zip(keypoints.reshape(-1, 2), COLOURS * len(keypoints)):
        x, y = point.round().astype(int)
        if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
            count += np.abs(image[y, x] - colour).max() < 60
    return count
