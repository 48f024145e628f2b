"""Several processes compute what one does, and end together."""

from __future__ import annotations

import time

import pytest
import torch
from processes import run_in
from toy_training import differences
from work import train

# Sums in another order: some units in the last place of the largest value.
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-14}


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('world', [2, 3])
def test_gradients_and_weights_equal_a_single_processes(tmp_path, world, dtype):
    alone = train(0, 1, None, dtype)
    together = run_in(world, 'train', tmp_path / 'group', None, dtype)
    assert alone['gradients'].keys() == together[0]['gradients'].keys()
    for kind in ('gradients', 'weights'):
        for name, expected in alone[kind].items():
            for found in together:
                difference = (found[kind][name] - expected).abs().max()
                assert difference <= ROUNDING[dtype] * max(1, expected.abs().max()), name
                assert torch.equal(found[kind][name], together[0][kind][name]), name


def test_without_sync_the_norm_makes_a_difference(tmp_path):
    """What the equality above is worth."""
    alone = train(0, 1, 'BN', torch.float64)
    found = run_in(2, 'train', tmp_path / 'group', 'BN', torch.float64)[0]
    difference = (found['gradients']['1.w3'] - alone['gradients']['1.w3']).abs().max()
    assert difference > 1e-3 * alone['gradients']['1.w3'].abs().max()


def test_the_others_end_when_one_is_killed(tmp_path):
    begun = time.monotonic()
    assert run_in(3, 'reduced_step', tmp_path / 'group', 1, wait=60)[1] == -9
    statuses = run_in(2, 'reduced_step', tmp_path / 'second', 0, wait=60)
    assert statuses[0] == -9
    assert statuses[1] not in (0, None)
    assert time.monotonic() - begun < 120


@pytest.mark.parametrize(
    'options',
    [dict(), dict(workers=1, save_by_epoch=False, interval=2), dict(by_epoch=False, total=11)],
    ids=['epochs', 'epochs saved by iteration', 'iterations'],
)
def test_resumed_equals_uninterrupted(tmp_path, options):
    options = dict(options, length=36)
    found = run_in(2, 'resume', tmp_path / 'group', str(tmp_path), options)
    assert differences(*found[0]) == []
    # The first process alone logs, and keeps the averages that are saved.
    others = [name.partition('.')[0] for name in differences(*found[1])]
    assert set(others) <= {'log', 'average'}
    assert differences(found[0][0], found[1][0]) != [], 'each has its own losses'


def test_all_stop_at_what_is_not_finite(tmp_path):
    first, second = run_in(2, 'poisoned', tmp_path / 'group', str(tmp_path / 'run'))
    assert first.startswith('iteration 1 (epoch 1): losses that are not finite: loss')
    assert 'images/2.jpg' in first
    assert second.startswith('iteration 1 (epoch 1): gradients of ')
    assert 'images/2.jpg' not in second
