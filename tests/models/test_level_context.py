"""A layer on chosen levels: where it stands, what it leaves alone, which weights load."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from polynl_mmdet.models import LevelContext

CHANNELS = [8, 16, 32]
FPN = dict(type='FPN', in_channels=CHANNELS, out_channels=8, num_outs=4)
LAYERS = [
    dict(type='PolyNL'),
    dict(type='AgentAttention', grid=2),
    dict(type='NonLocal2d'),
    dict(type='ContextBlock', ratio=0.25),
]


def maps():
    return tuple(torch.randn(2, c, 32 // s, 24 // s) for c, s in zip(CHANNELS, (1, 2, 4)))


def build(cfg):
    module = MODELS.build(cfg)
    module.init_weights()
    return module


def level_context(**kwargs):
    return build(dict(dict(type='LevelContext', layer=dict(type='PolyNL'), levels=[1]), **kwargs))


@pytest.mark.parametrize('layer', LAYERS, ids=lambda layer: layer['type'])
@pytest.mark.parametrize('after_neck', [False, True])
def test_a_new_one_leaves_the_necks_outputs_and_loads_its_weights(layer, after_neck):
    plain = build(FPN)
    added = level_context(layer=layer, levels=[2], neck=FPN, after_neck=after_neck)
    found = added.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys == [f'context.2.{key}' for key in added.context['2'].state_dict()]
    inputs = maps()
    for one, other in zip(added(inputs), plain(inputs)):
        assert torch.equal(one, other)


@pytest.mark.parametrize('levels', [[2], [2, 0]])
@pytest.mark.parametrize('place', ['alone', 'before', 'after'])
def test_only_the_chosen_maps_go_through_their_own_layer(levels, place):
    module = level_context(
        levels=levels,
        neck=None if place == 'alone' else FPN,
        after_neck=place == 'after',
        in_channels=CHANNELS if place == 'alone' else None,
    )
    for parameter in module.parameters():
        parameter.data += torch.randn_like(parameter) * 0.2
    inputs = maps()
    expected = list(module.neck(inputs) if place == 'after' else inputs)
    assert len(module.context) == len(levels)
    for level in levels:
        expected[level] = module.context[str(level)](expected[level])
        assert not torch.equal(expected[level], inputs[level])
    expected = module.neck(expected) if place == 'before' else expected
    torch.testing.assert_close(module(inputs), tuple(expected), rtol=0, atol=0)


@pytest.mark.parametrize('load', [load_state_dict, lambda m, s: m.load_state_dict(s, strict=False)])
@pytest.mark.parametrize('neck', [FPN, [FPN, dict(type='BFP', in_channels=8, num_levels=4)]])
def test_weights_of_a_detector_without_it_load(load, neck):
    plain = nn.ModuleDict(dict(neck=build(neck)))
    added = nn.ModuleDict(dict(neck=level_context(neck=neck)))
    load(added, plain.state_dict())
    for one, other in zip(added.neck.neck.parameters(), plain.neck.parameters()):
        assert torch.equal(one, other)
    # What fits nowhere is still reported.
    other = {**plain.state_dict(), 'neck.no_such_part.weight': torch.zeros(1)}
    found = added.load_state_dict(other, strict=False)
    assert found.unexpected_keys == ['neck.neck.no_such_part.weight']


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(levels=[3]), ['neck.levels', '[3]', '0 to 2']),
        (dict(levels=[1, 1]), ['neck.levels', '[1, 1]', 'different']),
        (dict(levels=[]), ['neck.levels', '[]']),
        (dict(in_channels=None), ['neck.in_channels', 'None', 'channels of the maps']),
        (dict(layer=dict(type='PolyNl')), ['neck.layer', "did you mean 'PolyNL'"]),
        (dict(layer='PolyNL'), ['neck.layer', "'PolyNL'"]),
        (dict(in_channels=[8, 24, 32]), ['in_channels=[8, 24, 32]', '[8, 16, 32]']),
        (dict(in_channels=16, levels=[5]), ['levels=[5]', '3 maps']),
    ],
)
def test_bad_arguments_are_named(changes, words):
    kwargs = dict(dict(layer=dict(type='PolyNL'), levels=[1], in_channels=CHANNELS), **changes)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        LevelContext(**kwargs)(maps())
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(('after_neck', 'channels'), [(False, [8, 16, 32]), (True, 16)])
def test_channels_of_a_list_of_necks(after_neck, channels):
    necks = [
        dict(type='FPN', in_channels=CHANNELS, out_channels=12, num_outs=3),
        dict(type='SSHContext', in_channels=12, out_channels=16, num_levels=3),
    ]
    module = LevelContext(dict(type='PolyNL'), levels=[1], neck=necks, after_neck=after_neck)
    assert module.in_channels == channels
    assert [out.shape[1] for out in module(maps())] == [16, 16, 16]
