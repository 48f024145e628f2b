"""Anchors of both layouts to the pixel; coders that are the inverse of themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from polynl_mmdet.models import LandmarkCoder

MODELS_DIR = Path(__file__).parents[2] / 'configs' / '_base_' / 'models'
PAPER_SIZES = [16 * 2 ** (k / 3) for k in range(15)]
LAYOUTS = {
    'retinaface_r50_fpn.py': [
        (4 * 2**level, PAPER_SIZES[3 * level : 3 * level + 3]) for level in range(5)
    ],
    'retinaface_r50_merge-fpn.py': [(8, [16, 32]), (16, [64, 128]), (32, [256, 512])],
    'retinaface_mobilenet0.25_merge-fpn.py': [(8, [16, 32]), (16, [64, 128]), (32, [256, 512])],
}


def head_config(name):
    register_all_modules()
    return Config.fromfile(MODELS_DIR / name).model.bbox_head


@pytest.mark.parametrize('name', LAYOUTS)
@pytest.mark.parametrize('size', [(640, 640), (333, 517)])
def test_anchors(name, size):
    height, width = size
    generator = TASK_UTILS.build(head_config(name).anchor_generator)
    maps = [(-(-height // s), -(-width // s)) for s, _ in LAYOUTS[name]]
    levels = generator.grid_priors(maps, device='cpu')
    assert generator.num_levels == len(LAYOUTS[name])
    for anchors, (rows, columns), (stride, sides) in zip(levels, maps, LAYOUTS[name]):
        expected = [
            (
                (column + 0.5) * stride - side / 2,
                (row + 0.5) * stride - side / 2,
                (column + 0.5) * stride + side / 2,
                (row + 0.5) * stride + side / 2,
            )
            for row in range(rows)
            for column in range(columns)
            for side in sides
        ]
        np.testing.assert_allclose(anchors.numpy(), np.array(expected), atol=1e-4)


def random_boxes(generator, count):
    corner = torch.rand(count, 2, generator=generator) * 600
    size = 8 + torch.rand(count, 2, generator=generator) * 400
    return torch.cat([corner, corner + size], dim=1)


def test_box_code_is_the_ssd_one():
    coder = TASK_UTILS.build(head_config('retinaface_r50_merge-fpn.py').bbox_coder)
    anchor = torch.tensor([[10.0, 20.0, 42.0, 52.0]])
    box = torch.tensor([[20.0, 10.0, 60.0, 90.0]])
    expected = [
        (40 - 26) / 32 / 0.1,
        (50 - 36) / 32 / 0.1,
        np.log(40 / 32) / 0.2,
        np.log(80 / 32) / 0.2,
    ]
    np.testing.assert_allclose(coder.encode(anchor, box)[0].numpy(), expected, rtol=1e-6)


def test_landmarks_encoded_and_decoded():
    generator = torch.Generator().manual_seed(1)
    anchors = random_boxes(generator, 500).double()
    points = torch.rand(500, 5, 2, generator=generator).double() * 1000 - 100
    coder = LandmarkCoder()
    codes = coder.encode(anchors, points)
    assert (coder.decode(anchors, codes) - points).abs().max() < 1e-9
    assert (coder.decode(anchors, codes.flatten(1)) - points).abs().max() < 1e-9
    single = coder.decode(anchors.float(), coder.encode(anchors.float(), points.float()))
    assert (single - points).abs().max() < 1e-5 * points.abs().max()


def test_landmark_is_centre_plus_a_tenth_of_the_size():
    coder = LandmarkCoder(num_points=2)
    anchor = torch.tensor([[8.0, 16.0, 24.0, 48.0]])  # centre (16, 32), 16 wide and 32 high
    codes = torch.tensor([[1.0, -2.0, 0.0, 5.0]])
    expected = torch.tensor([[[16 + 1.6, 32 - 6.4], [16, 32 + 16]]])
    assert torch.allclose(coder.decode(anchor, codes), expected)
    assert coder.encode_size == 4
