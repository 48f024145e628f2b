"""Hard-negative mining against a loop."""

from __future__ import annotations

import pytest
import torch

from polynl_mmdet.models.dense_heads import hard_negatives


def oracle(losses, positive, negative, ratio):
    wanted = int(ratio * max(sum(positive), 1))
    chosen = [False] * len(losses)
    for _ in range(wanted):
        left = [i for i in range(len(losses)) if negative[i] and not chosen[i]]
        if not left:
            break
        chosen[max(left, key=lambda i: losses[i])] = True
    return chosen


@pytest.mark.parametrize('seed', range(40))
@pytest.mark.parametrize('ratio', [1, 3, 2.5])
def test_agrees_with_a_loop(seed, ratio):
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 60, (1,), generator=generator))
    losses = torch.rand(count, generator=generator, requires_grad=True)
    kind = torch.randint(0, 8, (count,), generator=generator)
    positive, negative = kind == 0, kind > 1
    found = hard_negatives(losses, positive, negative, ratio)
    expected = oracle(losses.tolist(), positive.tolist(), negative.tolist(), ratio)
    assert found.tolist() == expected


def test_without_positives_three_negatives_train():
    losses = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.2])
    none = torch.zeros(5, dtype=torch.bool)
    assert hard_negatives(losses, none, ~none, 3).tolist() == [False, True, True, True, False]


def test_negative_ratio_keeps_all():
    negative = torch.tensor([True, False, True])
    assert hard_negatives(torch.rand(3), ~negative, negative, -1).equal(negative)
