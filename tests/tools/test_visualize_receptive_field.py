"""The effective receptive field: its figures by hand, and the tool from end to end."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

CONTROL = 'configs/demo/mask-rcnn_r18_fpn_toy-far-cue.py'
WITH_LAYER = 'configs/demo/mask-rcnn_r18-polynl-site-c3_fpn_toy-far-cue.py'


@pytest.fixture(scope='module')
def tool(repo_root):
    path = repo_root / 'tools' / 'visualize_receptive_field.py'
    spec = importlib.util.spec_from_file_location('visualize_receptive_field', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Backbone(nn.Module):
    """Two convolutions whose gradient is known."""

    out_indices = (1,)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        nn.init.constant_(self.conv.weight, -0.5)

    def forward(self, x):
        return (self.conv(x),)


class Neck(nn.Module):
    """The mean of the map, everywhere."""

    def forward(self, maps):
        return tuple(x.mean(dim=(2, 3), keepdim=True).expand_as(x) for x in maps)


def detector(neck=None):
    return SimpleNamespace(backbone=Backbone(), neck=neck)


def test_a_map_of_the_neck(tool):
    field = tool.receptive_field(detector(Neck()), torch.randn(1, 3, 9, 11), 'neck0', (0.5, 0.5))
    assert field.shape == (9, 11)
    np.testing.assert_allclose(field[1:-1, 1:-1], 27 / 99, rtol=1e-6)


def test_the_field_of_one_convolution(tool):
    field = tool.receptive_field(detector(), torch.randn(1, 3, 9, 11), 'c3', (0.5, 0.5))
    expected = np.zeros((9, 11))
    expected[3:6, 4:7] = 3.0  # 3 colours x 2 channels x 0.5
    np.testing.assert_allclose(field, expected)
    corner = tool.receptive_field(detector(), torch.randn(1, 3, 9, 11), 'c3', (1.0, 0.0))
    assert (corner > 0).sum() == 4
    assert corner[0, -1] > 0


def test_figures_of_a_known_field(tool):
    field = np.zeros((101, 101))
    field[50, 50] = 0.6
    field[50, 70] = 0.4
    figures = tool.describe(field, (0.5, 0.5))
    assert figures == {'reached': 2 / 101**2, 'radius50': 0.0, 'radius90': 20.0}


@pytest.mark.parametrize(('stage', 'at'), [('c4', (0.5, 0.5)), ('C3', (0.5, 0.5))])
def test_unknown_stages_are_named(tool, stage, at):
    with pytest.raises(ValueError, match=f"--stage: '{stage}'; accepted: c3"):
        tool.receptive_field(detector(), torch.zeros(1, 3, 9, 9), stage, at)


def test_a_backbone_that_names_no_outputs_has_no_stage(tool):
    model = SimpleNamespace(backbone=nn.Conv2d(3, 2, 1), neck=None)
    with pytest.raises(ValueError, match="--stage: 'c3'; accepted: "):
        tool.receptive_field(model, torch.zeros(1, 3, 9, 9), 'c3', (0.5, 0.5))


def trained(repo_root, config, path):
    """A checkpoint whose Poly-NL, if there is one, is away from the identity."""
    from mmdet.registry import MODELS
    from mmengine.config import Config

    model = MODELS.build(Config.fromfile(repo_root / config).model)
    model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith('.w3'):
                torch.nn.init.xavier_uniform_(parameter)
    torch.save({'state_dict': model.state_dict()}, path)


def test_two_models_on_a_real_image(data_root, repo_root, run_tool, tmp_path):
    image = sorted((data_root / 'coco_mini' / 'val2017').glob('*.jpg'))[0]
    for config, name in ((CONTROL, 'control.pth'), (WITH_LAYER, 'layer.pth')):
        trained(repo_root, config, tmp_path / name)
    out = tmp_path / 'field.png'
    done = run_tool(
        'visualize_receptive_field.py',
        CONTROL,
        tmp_path / 'control.pth',
        '--image',
        image,
        '--stage',
        'c3',
        '--versus',
        WITH_LAYER,
        tmp_path / 'layer.pth',
        '--out',
        out,
    )
    assert done.returncode == 0, done.stdout
    reached = [
        float(line.split(': ')[1].split('%')[0])
        for line in done.stdout.splitlines()
        if 'of the pixels reached' in line
    ]
    assert len(reached) == 2
    assert reached[0] < 10 < 95 < reached[1]
    assert cv2.imread(str(out)).shape[1] > 800


def test_bad_input_is_named(run_tool, tmp_path):
    image = tmp_path / 'a.png'
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    text = tmp_path / 'text.jpg'
    text.write_text('not an image')
    for arguments, words in (
        (['nowhere.py', '--image', image], ['nowhere.py', 'no such config']),
        ([CONTROL, '--image', text, '--stage', 'c3'], ['text.jpg', 'not an image']),
        ([CONTROL, '--image', image, '--stage', 'c5'], ['--stage', "'c5'", 'c2, c3']),
        ([CONTROL, tmp_path / 'no.pth', '--image', image], ['no.pth', 'no such file']),
    ):
        done = run_tool('visualize_receptive_field.py', *arguments, '--out', tmp_path / 'o.png')
        assert done.returncode == 2, done.stdout
        last = done.stdout.splitlines()[-1]
        assert last.startswith('error: '), done.stdout
        assert all(word in last for word in words), last
