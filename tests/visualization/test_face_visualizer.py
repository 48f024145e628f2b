"""Drawn faces: the pixels where boxes and landmarks belong."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from polynl_mmdet.visualization.face_visualizer import BOX_COLOR, LANDMARK_COLORS

BLACK = np.zeros((200, 300, 3), np.uint8)
BOX = [100.0, 60.0, 180.0, 160.0]
POINTS = [[120.0, 90.0], [160.0, 90.0], [140.0, 115.0], [122.0, 140.0], [158.0, 140.0]]


def draw(image, box, points, draw_gt=False, **fields):
    sample = DetDataSample()
    sample.gt_instances = sample.pred_instances = InstanceData(
        bboxes=torch.tensor([box]),
        labels=torch.zeros(1, dtype=torch.long),
        keypoints=torch.tensor([points]),
        **fields,
    )
    visualizer = VISUALIZERS.build(dict(type='FaceVisualizer', name='faces'))
    visualizer.add_datasample('one', image, sample, draw_gt=draw_gt, draw_pred=not draw_gt)
    return visualizer.get_image()


def near(pixel, colour):
    return np.abs(pixel.astype(int) - colour).max() < 60


def test_box_score_and_landmarks():
    image = draw(BLACK, BOX, POINTS, scores=torch.tensor([0.87]))
    for (x, y), colour in zip(POINTS, LANDMARK_COLORS):
        assert near(image[int(y), int(x)], colour)
    assert near(image[110, 99:102].max(axis=0), BOX_COLOR)
    # The score stands above the box, and nothing but the landmarks inside it.
    assert image[40:58, 100:150].any()
    assert not image[62:80, 104:176].any()


def test_low_scores_and_unannotated_landmarks_are_not_drawn():
    assert not draw(BLACK, BOX, POINTS, scores=torch.tensor([0.1])).any()
    visible = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0]])
    image = draw(BLACK, BOX, POINTS, True, scores=torch.ones(1), keypoints_visible=visible)
    assert near(image[90, 120], LANDMARK_COLORS[0])
    assert not image[115, 140].any()


def test_a_face_beyond_the_image_leaves_it_in_its_place():
    random = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    outside = [[-50.0, -50.0]] * 5
    image = draw(random, [-200.0, 30.0, 500.0, 400.0], outside, scores=torch.tensor([0.9]))
    assert image.shape == random.shape
    plain = draw(random, BOX, outside, scores=torch.tensor([0.1]))  # as matplotlib draws it
    np.testing.assert_array_equal(image[35:], plain[35:])  # Below the box's upper edge.
