"""LevelContext over mmdet's configs of three detectors, a few lines each."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from torch.utils._pytree import tree_flatten

IMPORTS = "custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)\n"
# Between backbone and neck.
CONTEXT = """
model = dict(neck=dict(
    _delete_=True, type='LevelContext', levels=[2],
    layer=dict(type='PolyNL', context_norm=True),
    neck=_base_.model.neck))
"""
# mmdet has no such config of its own.
SWIN = """
backbone = dict(_delete_=True, type='SwinTransformer', embed_dims=24, num_heads=[1, 2, 2, 4])
fpn = dict(type='FPN', in_channels=[24, 48, 96, 192], out_channels=256, num_outs=5)
model = dict(backbone=backbone, neck=fpn)
"""
SWIN_CONTEXT = """
model.update(neck=dict(
    _delete_=True, type='LevelContext', levels=[2],
    layer=dict(type='PolyNL', context_norm=True), neck=fpn))
"""
# This detector has no neck: its head takes the backbone's maps.
MASK2FORMER_CONTEXT = """
model = dict(neck=dict(
    type='LevelContext', levels=[2],
    layer=dict(type='PolyNL', context_norm=True),
    in_channels=[256, 512, 1024, 2048]))
"""
CASCADE = {f'roi_head.bbox_head.{stage}.fc_out_channels': 64 for stage in range(3)}
CASCADE['train_cfg.rpn_proposal.max_per_img'] = 16
CASCADE['test_cfg.rpn.max_per_img'] = 16
CASCADE['test_cfg.rcnn.max_per_img'] = 4
# Config of mmdet: lines that both models have, lines that add the layer, changes.
FAMILIES = {
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py': ('', CONTEXT, {}),
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': (SWIN, SWIN_CONTEXT, CASCADE),
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': (
        '',
        MASK2FORMER_CONTEXT,
        {
            'panoptic_head.num_queries': 10,
            'panoptic_head.pixel_decoder.encoder.num_layers': 1,
            'panoptic_head.transformer_decoder.num_layers': 3,
            'train_cfg.num_points': 112,
        },
    ),
}


def build(text, changes, path):
    path.write_text(text)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    cfg = cfg.model
    cfg.backbone.init_cfg = None  # nothing is downloaded
    cfg.data_preprocessor.pop('batch_augments', None)  # which would enlarge the images
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def outputs(model, batch):
    """What backbone and neck give for a batch in evaluation mode, and all that the heads give."""
    model.eval()
    data = model.data_preprocessor(copy.deepcopy(batch), False)
    with torch.no_grad():
        found = [*model.extract_feat(data['inputs']), model(**data, mode='tensor')]
    return [leaf for leaf in tree_flatten(found)[0] if torch.is_tensor(leaf)]


@pytest.mark.parametrize('family', FAMILIES, ids=lambda name: name.split('/')[0])
def test_a_few_lines_over_a_config_of_mmdet(family, tmp_path):
    base = f"_base_ = 'mmdet::{family}'\n{IMPORTS}"
    before, context, changes = FAMILIES[family]
    plain = build(base + before, changes, tmp_path / 'plain.py')
    added = build(base + before + context, changes, tmp_path / 'added.py')
    layer = added.neck.context['2']
    # Weights of the whole plain detector, as in a published checkpoint.
    found = added.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys == [f'neck.context.2.{key}' for key in layer.state_dict()]

    batch = demo_mm_inputs(2, [[3, 64, 64]] * 2, num_items=[2, 1], num_classes=4, with_mask=True)
    expected = outputs(plain, batch)
    for one, other in zip(outputs(added, batch), expected, strict=True):
        assert torch.equal(one, other)

    added.train()
    data = added.data_preprocessor(copy.deepcopy(batch), True)
    loss = added.parse_losses(added(**data, mode='loss'))[0]
    assert torch.isfinite(loss)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())

    with torch.no_grad():
        layer.alpha.fill_(0.5)
    assert any(not torch.equal(*pair) for pair in zip(outputs(added, batch), expected))
