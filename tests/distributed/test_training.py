"""Several processes compute what one does, and end together."""

from __future__ import annotations

import time

import pytest
import torch
from processes import run_in
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
