"""Each transform moves boxes and landmarks as it moves pixels.

The proof: an image is black but for one bright block at each landmark; after a transform the
brightest spot near each landmark must lie where ``gt_keypoints`` says.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes

import polynl_mmdet  # noqa: F401

HEIGHT, WIDTH = 120, 200
# Two faces, each with five landmarks far enough apart to tell them in the image.
MARKS = np.array(
    [
        [[30, 30], [60, 34], [45, 50], [32, 70], [58, 72]],
        [[130, 20], [160, 24], [145, 40], [132, 60], [158, 62]],
    ],
    dtype=np.float32,
)
BOXES = np.array([[20, 15, 70, 85], [120, 5, 170, 75]], dtype=np.float32)
RADIUS = 3


def mark_image():
    """Landmark k of face f is a grey block of its own brightness."""
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, (x, y) in enumerate(MARKS.reshape(-1, 2).astype(int)):
        block = image[y - RADIUS : y + RADIUS, x - RADIUS : x + RADIUS]
        block[:] = 30 + 22 * number
    return image


def make_results(ignored=(False, False)):
    """A pipeline's results with two faces."""
    return dict(
        img=mark_image(),
        img_shape=(HEIGHT, WIDTH),
        gt_bboxes=HorizontalBoxes(torch.from_numpy(BOXES.copy())),
        gt_bboxes_labels=np.array([0, 0]),
        gt_ignore_flags=np.array(ignored),
        gt_keypoints=MARKS.copy(),
        gt_keypoints_visible=np.array([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1]], dtype=np.float32),
    )


def brightness_at(results):
    """The grey value under every landmark, face by face."""
    x, y = np.floor(results['gt_keypoints']).astype(int).reshape(-1, 2).T
    return results['img'][y, x, 0].reshape(-1, 5).astype(int)


EXPECTED = 30 + 22 * np.arange(10).reshape(2, 5)
SWAP = [1, 0, 2, 4, 3]


def apply(results, **config):
    """Build a transform and apply it."""
    return TRANSFORMS.build(config)(results)


@pytest.mark.parametrize(
    ('options', 'size'),
    [
        (dict(scale=(400, 240)), (240, 400)),
        (dict(scale=(300, 300), keep_ratio=True), (180, 300)),
        (dict(scale_factor=1.7), (204, 340)),
    ],
)
def test_resize(options, size):
    results = apply(make_results(), type='FaceResize', **options)
    assert results['img'].shape[:2] == results['img_shape'] == size
    scale = np.array([size[1] / WIDTH, size[0] / HEIGHT])
    np.testing.assert_allclose(results['gt_keypoints'], MARKS * scale, rtol=1e-5)
    np.testing.assert_allclose(results['gt_bboxes'].numpy(), BOXES * np.tile(scale, 2), rtol=1e-5)
    np.testing.assert_allclose(brightness_at(results), EXPECTED, atol=6)
    assert results['gt_keypoints'].dtype == np.float32


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_flip(direction):
    results = apply(make_results(), type='FaceRandomFlip', prob=1.0, direction=direction)
    marks, boxes = MARKS.copy(), BOXES.copy()
    if direction != 'vertical':
        marks[..., 0] = WIDTH - marks[..., 0]
        boxes[:, [0, 2]] = WIDTH - boxes[:, [2, 0]]
    if direction != 'horizontal':
        marks[..., 1] = HEIGHT - marks[..., 1]
        boxes[:, [1, 3]] = HEIGHT - boxes[:, [3, 1]]
    mirrored = direction != 'diagonal'
    order = SWAP if mirrored else [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(results['gt_keypoints'], marks[:, order])
    np.testing.assert_array_equal(results['gt_bboxes'].numpy(), boxes)
    np.testing.assert_array_equal(brightness_at(results), EXPECTED[:, order])
    visible = results['gt_keypoints_visible']
    assert visible[0].tolist() == ([1, 1, 1, 1, 0] if mirrored else [1, 1, 1, 0, 1])


def test_square_crop():
    crop = TRANSFORMS.build(dict(type='RandomSquareCrop'))
    sides = []
    for _ in range(300):
        results = crop(make_results())
        side = results['img'].shape[0]
        assert results['img'].shape == (side, side, 3)
        assert results['img_shape'] == (side, side)
        shift = results['homography_matrix'][:2, 2]
        moved = BOXES + np.tile(shift, 2)
        centres = (moved[:, :2] + moved[:, 2:]) / 2
        kept = ((centres >= 0) & (centres < side)).all(axis=1)
        assert kept.any()
        np.testing.assert_array_equal(results['gt_bboxes'].numpy(), moved[kept].clip(0, side))
        np.testing.assert_array_equal(results['gt_keypoints'], (MARKS + shift)[kept])
        for key in ('gt_bboxes_labels', 'gt_ignore_flags', 'gt_keypoints_visible'):
            np.testing.assert_array_equal(results[key], make_results()[key][kept])
        left, top = (-shift).astype(int)
        expected = mark_image()[top : top + side, left : left + side]
        np.testing.assert_array_equal(results['img'], expected)
        sides.append(side)
    assert 0.3 * HEIGHT - 1 <= min(sides) < 0.4 * HEIGHT
    assert 0.9 * HEIGHT < max(sides) <= HEIGHT


def test_square_crop_keeps_a_face_to_learn_from():
    """Where chance finds none, and where the other face is ignored."""
    corners = HorizontalBoxes(torch.tensor([[0.0, 0, 3, 3], [196, 116, 200, 120]]))
    for _ in range(50):
        results = dict(make_results(), gt_bboxes=corners.clone())
        results = apply(results, type='RandomSquareCrop', scale_range=(0.05, 0.1), max_tries=1)
        assert len(results['gt_bboxes']) == 1
        results = make_results((True, False))
        results = apply(results, type='RandomSquareCrop', scale_range=(0.3, 0.5))
        assert (~results['gt_ignore_flags']).any()


@pytest.mark.parametrize('faces', [0, 2])
def test_square_crop_without_faces_to_learn_from(faces):
    results = make_results((True, True))
    results.update({k: v[:faces] for k, v in results.items() if k.startswith('gt_')})
    results = apply(results, type='RandomSquareCrop')
    assert results['img'].shape[0] == results['img'].shape[1]
    assert len(results['gt_bboxes']) == len(results['gt_keypoints']) <= faces
    results = apply(dict(img=np.zeros((1, 5, 3), np.uint8)), type='RandomSquareCrop')
    assert results['img'].shape == (1, 1, 3)
