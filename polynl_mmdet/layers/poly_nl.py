"""Poly-NL.

Babiloni et al., "Poly-NL: Linear Complexity Non-Local Layers With 3rd Order Polynomials",
ICCV 2021, https://arxiv.org/abs/2107.02859, Sec. 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import poly_nl


class PolyNL(nn.Module):
    """Poly-NL layer: ``Z = alpha X + beta (norm(mean_N(X W1 * X W2)) * X) W3``.

    * is the element-wise product, mean_N the mean over all positions: the context, C numbers per
    image. The cost is linear in the number of positions. Without the norm this is the formula as
    published. The means differ little from image to image; ``context_norm=True`` makes their
    differences large.

    A new layer is the identity: alpha = beta = 1 and W3 = 0. The weights are plain parameters,
    which an ``init_cfg`` of the surrounding backbone does not reach.

    Args:
        in_channels (int): Channels C.
        context_norm (bool): Whether the context goes through a LayerNorm. Defaults to False.
        bias (bool): Whether W1, W2 and W3 have biases. Defaults to False.

    Shape:
        (B, C, *spatial) with one or more spatial axes, to the same. Tokens (B, N, C) of a ViT go in
        as ``x.transpose(1, 2)``.
    """

    _abbr_ = 'poly_nl'  # Prefix of the module's name in mmcv's plugins.

    def __init__(self, in_channels: int, context_norm: bool = False, bias: bool = False) -> None:
        super().__init__()
        if not isinstance(context_norm, bool):
            raise ValueError(f'PolyNL: got context_norm={context_norm!r}, expected True or False')
        self.in_channels = in_channels
        self.w1 = nn.Parameter(torch.empty(in_channels, in_channels))
        self.w2 = nn.Parameter(torch.empty(in_channels, in_channels))
        self.w3 = nn.Parameter(torch.empty(in_channels, in_channels))
        self.b1 = nn.Parameter(torch.empty(in_channels)) if bias else None
        self.b2 = nn.Parameter(torch.empty(in_channels)) if bias else None
        self.b3 = nn.Parameter(torch.empty(in_channels)) if bias else None
        self.alpha = nn.Parameter(torch.empty(1))
        self.beta = nn.Parameter(torch.empty(1))
        self.context_norm = nn.LayerNorm(in_channels) if context_norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the layer the identity; with W3 = 0 (not beta = 0) a whole matrix has a gradient."""
        nn.init.xavier_uniform_(self.w1)
        nn.init.xavier_uniform_(self.w2)
        nn.init.zeros_(self.w3)
        for bias in (self.b1, self.b2, self.b3):
            if bias is not None:
                nn.init.zeros_(bias)
        nn.init.ones_(self.alpha)
        nn.init.ones_(self.beta)
        if self.context_norm is not None:
            self.context_norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, C, *spatial), floating point."""
        if x.dim() < 3 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'PolyNL: got input {tuple(x.shape)}, expected (B, {self.in_channels}, *spatial)'
            )
        weights = (self.w1, self.w2, self.w3, self.alpha, self.beta, self.b1, self.b2, self.b3)
        norm = None if self.context_norm is None else self._normalize
        return poly_nl(x, *weights, context_norm=norm)

    def _normalize(self, context: Tensor) -> Tensor:
        """Apply the LayerNorm to (B, C) in the context's dtype, float32 under autocast."""
        norm = self.context_norm
        weight, bias = norm.weight.to(context.dtype), norm.bias.to(context.dtype)
        return F.layer_norm(context, norm.normalized_shape, weight, bias, norm.eps)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, bias={self.b1 is not None}'
