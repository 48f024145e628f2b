"""Single sites between residual blocks, and mmdet's own plugins."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS

from polynl_mmdet.layers import PolyNL
from polynl_mmdet.models import SiteResNet

SITE = dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)


def build(**kwargs):
    base = dict(type='SiteResNet', depth=50, base_channels=8, stem_channels=8, sites=[SITE])
    model = MODELS.build({**base, **kwargs})
    model.init_weights()
    return model


def outputs(model, x):
    model.eval()  # mmdet's ResNet.train returns None.
    with torch.no_grad():
        return model(x)


def plain_of(model, **kwargs):
    kind = 'ResNeXt' if 'groups' in kwargs else 'ResNet'
    return MODELS.build(dict(type=kind, depth=50, base_channels=8, stem_channels=8, **kwargs))


@pytest.mark.parametrize('kind', ['ResNet', 'ResNeXt'])
def test_plain_weights_load_with_only_the_plugins_keys_missing(kind):
    extra = dict(groups=2, base_width=4) if kind == 'ResNeXt' else {}
    model = build(type=f'Site{kind}', **extra)
    plain = plain_of(model, **extra)
    plain.init_weights()
    missing = model.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    plugin = {name for name, child in model.named_modules() if isinstance(child, PolyNL)}
    assert plugin == {'layer3.site5_0'}
    assert {key.rpartition('.')[0] for key in missing.missing_keys} == plugin
    x = torch.randn(1, 3, 64, 48)
    for one, other in zip(outputs(model, x), outputs(plain, x)):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ('stage', 'before', 'key'), [('c2', 0, '0'), ('c3', 3, '3'), ('c5', -1, '2')]
)
def test_the_plugin_runs_right_before_its_block(stage, before, key):
    model = build(sites=[dict(SITE, stage=stage, before_block=before)])
    layer = getattr(model, model.res_layers[int(stage[1]) - 2])
    order = [name for name, _ in layer.named_children()]
    assert order[order.index(key) - 1] == f'site{key}_0'
    plugin, block = layer.get_submodule(f'site{key}_0'), layer.get_submodule(key)
    with torch.no_grad():
        plugin.w3.fill_(0.5)
    seen = {}
    plugin.register_forward_hook(lambda m, i, o: seen.update(out=o))
    block.register_forward_hook(lambda m, i, o: seen.update(into=i[0]))
    model(torch.randn(1, 3, 64, 64))
    assert seen['into'] is seen['out']


def test_two_plugins_at_one_site_run_in_the_configs_order():
    model = build(sites=[SITE, dict(SITE, cfg=dict(type='ContextBlock', ratio=0.25))])
    names = [type(child).__name__ for child in model.layer3.children()]
    assert names[-3:] == ['PolyNL', 'ContextBlock', 'Bottleneck']


def test_basic_blocks_have_sites_too():
    model = MODELS.build(dict(type='SiteResNet', depth=18, sites=[SITE]))
    assert model.layer3.site1_0.in_channels == 256


def test_frozen_stages_norm_eval_and_checkpointing():
    model = build(
        frozen_stages=3,
        norm_eval=True,
        with_cp=True,
        sites=[SITE, dict(SITE, stage='c5', cfg=dict(type='NonLocal2d', norm_cfg=dict(type='BN')))],
    )
    model.train()
    assert not any(p.requires_grad for p in model.layer3.parameters())
    assert all(p.requires_grad for p in model.layer4.site2_0.parameters())
    assert not model.layer4.site2_0.conv_out.bn.training
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    sum(out.mean() for out in model(x)).backward()
    assert model.layer4.site2_0.g.conv.weight.grad is not None
    assert model.layer3.site5_0.beta.grad is None


@pytest.mark.parametrize(
    ('site', 'words'),
    [
        (dict(SITE, cfg=dict(type='PolyNl')), ['sites[0].cfg', "did you mean 'PolyNL'"]),
        (dict(SITE, stage='c6'), ['sites[0].stage', "'c6'", 'c2, c3, c4, c5']),
        (dict(SITE, stage=4), ['sites[0].stage', '4']),
        (dict(SITE, before_block=6), ['before_block', '6', '-6 to 5']),
        (dict(SITE, before_block='last'), ['before_block', "'last'"]),
        (dict(SITE, position='after_conv2'), ['sites[0]', 'position', 'before_block']),
        (dict(cfg=dict(type='PolyNL'), stage='c4'), ['sites[0]', 'before_block']),
        (dict(SITE, cfg=dict()), ['sites[0].cfg', 'type']),
    ],
)
def test_a_bad_site_is_named(site, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SiteResNet(depth=50, sites=[site])
    assert all(word in str(caught.value) for word in words)


def test_none_means_no_sites():
    keys = SiteResNet(depth=18, sites=None).state_dict()
    assert keys.keys() == SiteResNet(depth=18).state_dict().keys()
