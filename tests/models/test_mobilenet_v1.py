"""MobileNetV1 starts from converted ImageNet weights, and computes what the original does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from mmdet.registry import MODELS
from torch import nn
from torch.nn import functional as F

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.models import MobileNetV1

ROOT = Path(__file__).parents[2]
# Stride of each depthwise-separable block, by stage and place in it.
BLOCKS = {
    1: {1: 1, 2: 2, 3: 1, 4: 2, 5: 1},
    2: {0: 2, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1},
    3: {0: 2, 1: 1},
}


def original_features(state, x):
    """The three stages' outputs by the original layout, in evaluation mode."""

    def conv_bn(x, conv, norm, **kwargs):
        x = F.conv2d(x, state[f'module.{conv}.weight'], **kwargs)
        names = ('running_mean', 'running_var', 'weight', 'bias')
        x = F.batch_norm(x, *(state[f'module.{norm}.{name}'] for name in names))
        return torch.where(x > 0, x, 0.1 * x)

    x = conv_bn(x, 'stage1.0.0', 'stage1.0.1', stride=2, padding=1)
    for stage, blocks in BLOCKS.items():
        for place, stride in blocks.items():
            name = f'stage{stage}.{place}'
            groups = x.shape[1]
            x = conv_bn(x, f'{name}.0', f'{name}.1', stride=stride, padding=1, groups=groups)
            x = conv_bn(x, f'{name}.3', f'{name}.4')
        yield x


@torch.no_grad()
def test_a_backbone_starts_from_converted_weights(data_root, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('convert', ROOT / 'tools/convert_retinaface.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    classifier = data_root / 'mobilenet025_imagenet/mobilenetV1X0.25_pretrain.tar'
    out = tmp_path / 'backbone.pth'
    tool.main([str(classifier), str(out)])
    assert 'fc' in capsys.readouterr().out
    init_cfg = dict(type='Pretrained', checkpoint=str(out), prefix='backbone.')
    model = MODELS.build(dict(type='MobileNetV1', widen_factor=0.25, init_cfg=init_cfg))
    model.init_weights()
    x = torch.randn(2, 3, 97, 75)
    found = model.eval()(x)
    assert [tuple(f.shape[1:]) for f in found] == [(64, 13, 10), (128, 7, 5), (256, 4, 3)]
    state = load_checkpoint(classifier)['state_dict']
    for one, other in zip(found, original_features(state, x)):
        assert other.std() > 0.01
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_frozen_stages_and_norms():
    backbone = MobileNetV1(0.25, out_indices=(2,), frozen_stages=1, norm_eval=True)
    backbone.train()
    assert not any(p.requires_grad for p in backbone.stage1.parameters())
    assert all(p.requires_grad for p in backbone.stage2.parameters())
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    (out,) = backbone(torch.randn(1, 3, 32, 32))
    assert out.shape == (1, 256, 1, 1)
