"""Plugins of a config are checked before anything is built."""

from __future__ import annotations

import pytest

from polynl_mmdet.cli.config_check import check_plugins
from polynl_mmdet.errors import InputError

PLUGIN = dict(cfg=dict(type='PolyNL'), stages=(False, True, True, True), position='after_conv2')


def model(depth=50, kind='ResNet', **plugin):
    backbone = dict(type=kind, depth=depth, plugins=[{**PLUGIN, **plugin}])
    return dict(type='MaskRCNN', backbone=backbone, neck=dict(type='FPN'))


@pytest.mark.parametrize('kind', ['ResNet', 'ResNeXt', 'SiteResNet', 'mmdet.ResNet'])
def test_good_plugins_pass(kind):
    check_plugins(model(kind=kind))
    check_plugins(dict(type='Wrapper', model=model(kind=kind), parts=[dict(type='x')]))


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (model(stages=(True,) * 5), ['backbone.plugins[0].stages', '5 entries', '4 stages']),
        (model(position='after_conv4'), ['position', 'after_conv4', 'after_conv3']),
        (model(cfg=dict(type='PolyNl')), ["'PolyNl'", 'not registered', 'custom_imports']),
        (model(depth=18), ['ResNet-18', 'BasicBlock', 'SiteResNet']),
        (dict(module=model(stages=())), ['model.module.backbone.plugins[0].stages']),
    ],
)
def test_bad_plugins_are_named(bad, words):
    with pytest.raises(InputError) as caught:
        check_plugins(bad)
    assert all(word in str(caught.value) for word in words), caught.value
