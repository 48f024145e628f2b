"""Pyramid non-local layer.

Xu et al., "PNL: Efficient Long-Range Dependencies Extraction with Pyramid Non-Local Module for
Action Recognition", 2020, https://arxiv.org/abs/2006.05091. The same idea for images: Zhu et al.,
"PNEN: Pyramid Non-Local Enhanced Networks", IEEE TIP 2020, https://arxiv.org/abs/2008.09742.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, scaled_dot_product_attention

from .context_layer import ContextLayer, as_heads


@MODELS.register_module()
class PyramidNonLocal(ContextLayer):
    """``Z = X + Wz [Y_s]_s``, ``Y_s = softmax(theta(X) phi(P_s X)^T / sqrt(d)) g(P_s X)``.

    Queries keep the full resolution; keys and values are regions of s x s positions (P_s: average
    pooling), on several scales s. [.]_s puts the scales' results side by side. What is built here
    is this formula, with the embeddings theta, phi and g shared by the scales; the papers' own
    modules differ in such details (strided convolutions, video). The cost is quadratic in the
    number N of positions, N^2 / s^2 a scale; the matrices of pairs are never stored.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): d = C / reduction. Defaults to 2.
        scales (Sequence[int]): Sides s of the regions. A side that does not divide the input's
            gives ceil(H / s) x ceil(W / s) regions of about that size. Defaults to (2, 4, 8).
        norm_cfg (dict, optional): Norm layer after Wz. Defaults to None.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, no scale, or an input that is not
            (B, in_channels, H, W).
    """

    _abbr_ = 'pnl'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        scales: Sequence[int] = (2, 4, 8),
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        self.scales = tuple(self.check_positive('scales', scale) for scale in scales)
        if not self.scales:
            raise ValueError('PyramidNonLocal: scales=(); accepted: at least one')
        inner = self.inner_channels(reduction)
        self.theta = nn.Conv2d(in_channels, inner, 1)
        self.phi = nn.Conv2d(in_channels, inner, 1)
        self.g = nn.Conv2d(in_channels, inner, 1)
        self.build_output(inner * len(self.scales), norm_cfg)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x (Tensor): (B, C, H, W), floating point.

        Returns:
            Tensor: (B, C, H, W).
        """
        self.check_input(x)
        queries = as_heads(self.theta(x))
        levels = []
        for scale in self.scales:
            regions = adaptive_avg_pool2d(x, tuple(ceil(side / scale) for side in x.shape[2:]))
            keys, values = as_heads(self.phi(regions)), as_heads(self.g(regions))
            levels.append(scaled_dot_product_attention(queries, keys, values))
        y = torch.cat(levels, dim=3)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.output(y)
