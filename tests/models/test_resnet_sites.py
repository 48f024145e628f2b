"""Single sites between residual blocks, and mmdet's own plugins."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS

from polynl_mmdet.layers import PolyNL
from polynl_mmdet.models import SiteResNet

SITE = dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)


def build(kind='SiteResNet', **kwargs):
    small = dict(type=kind, depth=50, base_channels=8, stem_channels=8)
    model = MODELS.build({**small, **kwargs})
    model.init_weights()
    return model


@pytest.mark.parametrize(
    ('kind', 'extra'), [('ResNet', {}), ('ResNeXt', dict(groups=2, base_width=4))]
)
@torch.no_grad()
def test_plain_weights_load_with_only_the_plugins_keys_missing(kind, extra):
    plain, model = build(kind, **extra), build(f'Site{kind}', sites=[SITE], **extra)
    missing = model.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert {key.rpartition('.')[0] for key in missing.missing_keys} == {'layer3.site5_0'}
    plain.eval()
    model.eval()  # mmdet's ResNet.train returns None.
    x = torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('stage', 'before', 'key'), [('c2', 0, '0'), ('c3', 3, '3'), ('c5', -1, '2')]
)
def test_plugins_run_right_before_their_block_in_the_configs_order(stage, before, key):
    site = dict(SITE, stage=stage, before_block=before)
    model = build(sites=[dict(site, cfg=dict(type='ContextBlock', ratio=0.25)), site])
    layer = getattr(model, model.res_layers[int(stage[1]) - 2])
    order = [name for name, _ in layer.named_children()]
    place = order.index(key)
    assert order[place - 2 : place] == [f'site{key}_0', f'site{key}_1']
    plugin, block = layer.get_submodule(f'site{key}_1'), layer.get_submodule(key)
    assert isinstance(plugin, PolyNL)
    plugin.w3.data.fill_(0.5)
    seen = {}
    plugin.register_forward_hook(lambda m, i, o: seen.update(out=o))
    block.register_forward_hook(lambda m, i, o: seen.update(into=i[0]))
    model(torch.randn(1, 3, 64, 64))
    assert seen['into'] is seen['out']


def test_basic_blocks_have_sites_too_and_none_means_no_sites():
    model = SiteResNet(depth=18, sites=[SITE])
    assert model.layer3.site1_0.in_channels == 256
    plain = MODELS.build(dict(type='ResNet', depth=18)).state_dict()
    assert SiteResNet(depth=18, sites=None).state_dict().keys() == plain.keys()


def test_frozen_stages_norm_eval_and_checkpointing():
    non_local = dict(type='NonLocal2d', norm_cfg=dict(type='BN'))
    model = build(
        frozen_stages=3,
        norm_eval=True,
        with_cp=True,
        sites=[SITE, dict(SITE, stage='c5', cfg=non_local)],
    )
    assert not any(p.requires_grad for p in model.layer3.parameters())
    model.train()
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
        (dict(SITE, before_block=6), ['before_block', '6', '-6 to 5']),
        (dict(SITE, before_block='last'), ['before_block', "'last'"]),
        (dict(SITE, position='after_conv2'), ['sites[0]', 'position', 'before_block']),
        (dict(SITE, cfg=dict()), ['sites[0].cfg', 'type']),
    ],
)
def test_a_bad_site_is_named(site, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        build(sites=[site])
    assert all(word in str(caught.value) for word in words)
