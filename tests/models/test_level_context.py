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
CONTEXT = dict(type='LevelContext', layer=dict(type='PolyNL'), levels=[0], in_channels=8)
LAYERS = [
    dict(type='PolyNL'),
    dict(type='AgentAttention', grid=2),
    dict(type='GlobalResponseNorm'),
    dict(type='ReLULinearAttention'),
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


def disturb(module):
    """Move every parameter, so that no layer is the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


@pytest.mark.parametrize('layer', LAYERS, ids=lambda layer: layer['type'])
@pytest.mark.parametrize('after_neck', [False, True])
def test_a_fresh_one_leaves_the_necks_outputs_and_loads_its_weights(layer, after_neck):
    plain = build(FPN)
    added = level_context(layer=layer, levels=[2], neck=FPN, after_neck=after_neck)
    found = added.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys == [f'context.2.{key}' for key in added.context['2'].state_dict()]
    inputs = maps()
    for one, other in zip(added(inputs), plain(inputs)):
        assert torch.equal(one, other)


@pytest.mark.parametrize('levels', [[0], [2], [0, 2], (2, 1, 0)])
@pytest.mark.parametrize('place', ['alone', 'before', 'after'])
def test_only_the_chosen_maps_go_through_their_own_layer(levels, place):
    neck = None if place == 'alone' else FPN
    module = level_context(
        levels=levels,
        neck=neck,
        after_neck=place == 'after',
        in_channels=CHANNELS if place == 'alone' else None,
    )
    disturb(module)
    inputs = maps()
    expected = list(module.neck(inputs) if place == 'after' else inputs)
    assert len(module.context) == len(levels)
    for level in levels:
        expected[level] = module.context[str(level)](expected[level])
        assert not torch.equal(expected[level], inputs[level])
    expected = module.neck(expected) if place == 'before' else expected
    found = module(inputs)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert torch.equal(one, other)


class Detector(nn.Module):
    """What a checkpoint is named after."""

    def __init__(self, neck):
        super().__init__()
        self.neck = build(neck)


@pytest.mark.parametrize('load', [load_state_dict, lambda m, s: m.load_state_dict(s, strict=False)])
@pytest.mark.parametrize('neck', [FPN, [FPN, dict(type='BFP', in_channels=8, num_levels=4)]])
def test_weights_of_a_detector_without_it_load(load, neck):
    plain = Detector(neck)
    added = Detector(dict(CONTEXT, neck=neck))
    load(added, plain.state_dict())
    for one, other in zip(added.neck.neck.parameters(), plain.neck.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_neck_of_another_layout_is_reported_not_renamed_away():
    added = level_context(neck=FPN)
    state = build(dict(FPN, num_outs=3)).state_dict()
    state['no_such_part.weight'] = torch.zeros(1)
    found = added.load_state_dict(state, strict=False)
    assert found.unexpected_keys == ['neck.no_such_part.weight']


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(levels=[3]), ['neck.levels', '[3]', '0 to 2']),
        (dict(levels=[-1]), ['neck.levels', '[-1]', '0 to 2']),
        (dict(levels=[1, 1]), ['neck.levels', '[1, 1]', 'different']),
        (dict(levels=[]), ['neck.levels', '[]']),
        (dict(in_channels=None), ['neck.in_channels', 'None', 'channels of the maps']),
        (dict(layer=dict(type='PolyNl')), ['neck.layer', "did you mean 'PolyNL'"]),
        (dict(layer=dict()), ['neck.layer', '{}', "'type'"]),
        (dict(layer='PolyNL'), ['neck.layer', "'PolyNL'"]),
    ],
)
def test_bad_arguments_are_named(changes, words):
    kwargs = dict(dict(layer=dict(type='PolyNL'), levels=[1], in_channels=CHANNELS), **changes)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        LevelContext(**kwargs)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(in_channels=[8, 24, 32]), ['in_channels=[8, 24, 32]', '[8, 16, 32]']),
        (dict(in_channels=16, levels=[5]), ['levels=[5]', '3 maps']),
    ],
)
def test_maps_that_do_not_fit_are_named(kwargs, words):
    module = level_context(**kwargs)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        module(maps())
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(('after_neck', 'channels'), [(False, [8, 16, 32]), (True, 16)])
def test_channels_of_a_list_of_necks(after_neck, channels):
    necks = [
        dict(type='FPN', in_channels=[8, 16, 32], out_channels=12, num_outs=3),
        dict(type='SSHContext', in_channels=12, out_channels=16, num_levels=3),
    ]
    module = LevelContext(dict(type='PolyNL'), levels=[1], neck=necks, after_neck=after_neck)
    assert module.in_channels == channels
    assert [out.shape[1] for out in module(maps())] == [16, 16, 16]
