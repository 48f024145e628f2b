"""Model configs are checked before anything is built."""

from __future__ import annotations

import pytest
from mmdet.models.backbones import ResNet

from polynl_mmdet.layers import PolyNL
from polynl_mmdet.models import SiteResNet
from polynl_mmdet.models.config_check import check_model, replaced_lists

PLUGIN = dict(cfg=dict(type='PolyNL'), stages=(False, True, True, True), position='after_conv2')
SITE = dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)


def model(type='ResNet', **backbone):
    return dict(type='MaskRCNN', backbone=dict(type=type, **backbone), neck=dict(type='FPN'))


def plugged(type='ResNet', depth=50, **plugin):
    return model(type, depth=depth, plugins=[{**PLUGIN, **plugin}])


def test_good_layers_pass():
    for kind in ('ResNet', 'ResNeXt', 'SiteResNet', 'mmdet.ResNet', ResNet):
        check_model(plugged(kind))
    check_model(plugged(cfg=dict(type=PolyNL)))
    check_model(dict(type='Wrapper', model=plugged(), parts=[dict(type='x')]))
    check_model(plugged('Res2Net', position='after_conv3'))
    check_model(model(SiteResNet, depth=50, sites=[SITE]))
    check_model(model('SiteResNet', depth=18, sites=None))


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (plugged(stages=(True,) * 5), ['backbone.plugins[0].stages', 'got 5', '4 booleans']),
        (plugged(position='after_conv4'), ['position', 'after_conv4', 'after_conv3']),
        (plugged(cfg=dict(type='PolyNl')), ['plugins[0].cfg', "did you mean 'PolyNL'?"]),
        (plugged(cfg=dict(type='MyBlock')), ["'MyBlock' is not registered", 'custom_imports']),
        (plugged(depth=18), ['ResNet-18', 'no bottlenecks', 'SiteResNet']),
        (plugged('Res2Net'), ['position', 'after_conv2', 'expected after_conv3']),
        (plugged('SwinTransformer'), ['SwinTransformer takes no plugins', 'LevelContext']),
        (plugged('CSPNeXt'), ['CSPNeXt takes no plugins', 'LevelContext']),
        (model(depth=50, sites=[SITE]), ['ResNet takes no sites', 'SiteResNet']),
        (model(ResNet, depth=50, sites=[SITE]), ['ResNet takes no sites', 'SiteResNet']),
        (model(depth=50, plugins=PLUGIN), ['plugins', 'got dict', 'expected a list']),
        (model(depth=50, plugins=[dict(type='PolyNL')]), ['plugins[0].cfg', 'got None']),
        (model('SiteResNet', depth=50, sites=SITE), ['sites', 'got dict', 'expected a list']),
        (model('SiteResNet', sites=[dict(SITE, cfg=dict(type='polynl'))]), ['sites[0].cfg']),
        (model('SiteResnet', depth=50), ['model.backbone.type', "did you mean 'SiteResNet'?"]),
        (model('mmdet.ResNett', depth=50), ["did you mean 'ResNet'?"]),
        (dict(type='FCOS', bbox_head=dict(loss_cls=dict(type='FocalLos'))), ["'FocalLoss'"]),
        (dict(module=plugged(stages=())), ['model.module.backbone.plugins[0].stages']),
    ],
)
def test_bad_layers_are_named(bad, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_model(bad)
    assert all(word in str(caught.value) for word in words), caught.value


BASE = """
custom_imports = dict(imports=['json.tool'], allow_failed_imports=True)
plugin = dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')
model = dict(type='RetinaNet', backbone=dict(type='ResNet', depth=50, plugins=[plugin]))
"""
IMPORTS = "custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)\n"
PLUGINS = "plugin = dict(cfg=dict(type='PolyNL'), position='after_conv2')\n"


@pytest.mark.parametrize(
    ('child', 'lost'),
    [
        (IMPORTS, ['custom_imports', 'json.tool']),
        (IMPORTS.replace("['", "['json.tool', '"), []),
        (PLUGINS + 'model = dict(backbone=dict(plugins=[plugin]))', ['plugins', 'ContextBlock']),
        ('model = dict(backbone=dict(plugins=None))', []),
    ],
)
def test_lists_that_replace_the_bases_are_reported(child, lost, tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'child.py').write_text(f"_base_ = './base.py'\n{child}")
    lines = replaced_lists(tmp_path / 'child.py')
    assert len(lines) == bool(lost)
    assert all(word in line for line in lines for word in lost)
