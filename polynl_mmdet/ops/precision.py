"""Which dtype sums over positions are kept in."""

from __future__ import annotations

import torch

HALF = (torch.float16, torch.bfloat16)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """float32 for the 16-bit dtypes, the dtype itself for the others."""
    return torch.float32 if dtype in HALF else dtype
