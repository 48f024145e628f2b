"""Which dtype sums over positions are kept in."""

from __future__ import annotations

import torch

SIXTEEN_BIT = (torch.float16, torch.bfloat16)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for the 16-bit dtypes, the dtype itself for the others."""
    return torch.float32 if dtype in SIXTEEN_BIT else dtype
