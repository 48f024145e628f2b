"""LevelContext over mmdet's configs of two detectors, a few lines each."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from torch.utils._pytree import tree_flatten

BASE = """
_base_ = 'mmdet::{}'
custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)
context = dict(type='LevelContext', levels=[2], layer=dict(type='PolyNL', context_norm=True))
"""
# mmdet has no Swin of these detectors.
SWIN = """
backbone = dict(_delete_=True, type='SwinTransformer', embed_dims=24, num_heads=[1, 2, 2, 4])
fpn = dict(type='FPN', in_channels=[24, 48, 96, 192], out_channels=256, num_outs=5)
model = dict(backbone=backbone, neck=fpn)
"""
CASCADE = {f'roi_head.bbox_head.{stage}.fc_out_channels': 64 for stage in range(3)}
CASCADE['train_cfg.rpn_proposal.max_per_img'] = 16
CASCADE['test_cfg.rpn.max_per_img'] = 16
# Config of mmdet: lines that both models have, a line that adds the layer, changes.
FAMILIES = {
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py': (
        '',
        'model = dict(neck=dict(**context, _delete_=True, neck=_base_.model.neck))',
        {},
    ),
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': (
        SWIN,
        'model.update(neck=dict(**context, _delete_=True, neck=fpn))',
        CASCADE,
    ),
}


@pytest.mark.parametrize('family', FAMILIES, ids=lambda name: name.split('/')[0])
def test_a_few_lines_over_a_config_of_mmdet(family, tmp_path):
    before, context, changes = FAMILIES[family]

    def build(text):
        (tmp_path / 'config.py').write_text(BASE.format(family) + before + text)
        cfg = Config.fromfile(tmp_path / 'config.py')
        cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
        cfg.model.backbone.init_cfg = None  # Nothing is downloaded.
        cfg.model.data_preprocessor.pop('batch_augments', None)  # Which enlarges the images.
        model = MODELS.build(cfg.model)
        model.init_weights()
        return model.eval()

    def outputs(model):
        data = model.data_preprocessor(copy.deepcopy(batch), False)
        with torch.no_grad():
            found = [*model.extract_feat(data['inputs']), model(**data, mode='tensor')]
        return [leaf for leaf in tree_flatten(found)[0] if torch.is_tensor(leaf)]

    batch = demo_mm_inputs(2, [[3, 64, 64]] * 2, num_items=[2, 1], num_classes=4, with_mask=True)
    plain, added = build(''), build(context)
    layer = added.neck.context['2']
    # Weights of the whole plain detector, as in a published checkpoint.
    found = added.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys == [f'neck.context.2.{key}' for key in layer.state_dict()]
    expected = outputs(plain)
    torch.testing.assert_close(outputs(added), expected, rtol=0, atol=0)

    added.train()
    data = added.data_preprocessor(copy.deepcopy(batch), True)
    loss = added.parse_losses(added(**data, mode='loss'))[0]
    assert torch.isfinite(loss)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())
    layer.alpha.data.fill_(0.5)
    assert any(not torch.equal(*pair) for pair in zip(outputs(added.eval()), expected))
