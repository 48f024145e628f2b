"""Anchors of the configs to the pixel, and the codes of boxes and landmarks."""

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
LIGHT = [(8, [16, 32]), (16, [64, 128]), (32, [256, 512])]
LAYOUTS = {
    'retinaface_r50_fpn.py': [
        (4 * 2**level, PAPER_SIZES[3 * level : 3 * level + 3]) for level in range(5)
    ],
    'retinaface_r50_merge-fpn.py': LIGHT,
    'retinaface_mobilenet0.25_merge-fpn.py': LIGHT,
}


def head_config(name):
    register_all_modules()
    return Config.fromfile(MODELS_DIR / name).model.bbox_head


@pytest.mark.parametrize('name', LAYOUTS)
def test_anchors(name):
    generator = TASK_UTILS.build(head_config(name).anchor_generator)
    maps = [(-(-333 // s), -(-517 // s)) for s, _ in LAYOUTS[name]]
    levels = generator.grid_priors(maps, device='cpu')
    assert generator.num_levels == len(LAYOUTS[name])
    for anchors, (rows, columns), (stride, sides) in zip(levels, maps, LAYOUTS[name]):
        expected = [
            ((column + 0.5) * stride + dx * side / 2, (row + 0.5) * stride + dx * side / 2)
            for row in range(rows)
            for column in range(columns)
            for side in sides
            for dx in (-1, 1)
        ]
        np.testing.assert_allclose(anchors.reshape(-1, 2).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize('name', LAYOUTS)
def test_box_code_is_the_ssd_one(name):
    coder = TASK_UTILS.build(head_config(name).bbox_coder)
    anchor = torch.tensor([[10.0, 20.0, 42.0, 52.0]])
    box = torch.tensor([[20.0, 10.0, 60.0, 90.0]])
    shift = [(40 - 26) / 32 / 0.1, (50 - 36) / 32 / 0.1]
    expected = [*shift, np.log(40 / 32) / 0.2, np.log(80 / 32) / 0.2]
    np.testing.assert_allclose(coder.encode(anchor, box)[0].numpy(), expected, rtol=1e-6)


def test_landmark_is_centre_plus_a_tenth_of_the_size():
    coder = LandmarkCoder(num_points=2)
    anchor = torch.tensor([[8.0, 16.0, 24.0, 48.0]])  # centre (16, 32), 16 wide and 32 high
    codes = torch.tensor([[1.0, -2.0, 0.0, 5.0]])
    points = torch.tensor([[[16 + 1.6, 32 - 6.4], [16, 32 + 16]]])
    torch.testing.assert_close(coder.decode(anchor, codes), points)
    torch.testing.assert_close(coder.encode(anchor, points), codes.reshape(1, 2, 2))
    assert coder.encode_size == 4
