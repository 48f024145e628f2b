"""Pyramid non-local layer.

Xu et al., "PNL: Efficient Long-Range Dependencies Extraction with Pyramid Non-Local Module for
Action Recognition", 2020, https://arxiv.org/abs/2006.05091. The same idea for images: Zhu et al.,
"PNEN: Pyramid Non-Local Enhanced Networks", IEEE TIP 2020, https://arxiv.org/abs/2008.09742.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, scaled_dot_product_attention

from .context_layer import ContextLayer, as_map, as_tokens


class PyramidNonLocal(ContextLayer):
    """``Z = X + Wz [Y_s]_s``, ``Y_s = softmax(theta(X) phi(P_s X)^T / sqrt(d)) g(P_s X)``.

    Queries keep the full resolution; keys and values are average-pooled regions of s x s positions
    (P_s X), on several scales s. The results of the scales are concatenated. The embeddings theta,
    phi and g are shared by the scales; the papers' modules differ in such details (strided
    convolutions, video). The cost is quadratic in the number N of positions, N^2 / s^2 per scale;
    the matrices of pairs are never stored.

    Args:
        reduction (int): d = C / reduction. Defaults to 2.
        scales (Sequence[int]): Sides s of the regions. A map of H x W has
            ceil(H / s) x ceil(W / s) of them. Defaults to (2, 4, 8).
    """

    _abbr_ = 'pnl'

    def __init__(
        self, in_channels: int, reduction: int = 2, scales: Sequence[int] = (2, 4, 8)
    ) -> None:
        super().__init__(in_channels, reduction)
        self.scales = tuple(scales)
        self.add_projections('theta', 'phi', 'g')
        self.conv_out = nn.Conv2d(self.inner_channels * len(scales), in_channels, 1)
        self.reset_parameters()

    def branch(self, x: Tensor) -> Tensor:
        q = as_tokens(self.theta(x))
        levels = []
        for scale in self.scales:
            regions = adaptive_avg_pool2d(x, tuple(ceil(side / scale) for side in x.shape[2:]))
            k, v = as_tokens(self.phi(regions)), as_tokens(self.g(regions))
            levels.append(scaled_dot_product_attention(q, k, v))
        return self.conv_out(as_map(torch.cat(levels, dim=3), x))
