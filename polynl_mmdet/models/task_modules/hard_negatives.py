"""Online hard-negative mining."""

from __future__ import annotations

import torch
from torch import Tensor


def hard_negatives(losses: Tensor, positive: Tensor, negative: Tensor, ratio: float) -> Tensor:
    """Choose the negatives of one image that train: those of the highest loss (SSD, Sec. 2.2).

    An image without positives is mined as if it had one: it trains on its ``ratio`` hardest
    negatives, so that images without faces still count, and weigh no more than one face.

    Args:
        losses (Tensor): Classification loss of each anchor, (n,).
        positive (Tensor): Bool (n,).
        negative (Tensor): Bool (n,); anchors in neither are left out.
        ratio (float): Negatives for each positive. Negative: keep all.

    Returns:
        Tensor: Bool (n,), true at the chosen negatives.
    """
    if ratio < 0:
        return negative.clone()
    wanted = int(ratio * max(int(positive.sum()), 1))
    candidates = negative.nonzero()[:, 0]
    hardest = losses.detach()[candidates].topk(min(wanted, len(candidates))).indices
    chosen = torch.zeros_like(negative)
    chosen[candidates[hardest]] = True
    return chosen
