"""Global response normalization.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023,
https://arxiv.org/abs/2301.00808, Sec. 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .context_layer import ContextLayer


class GlobalResponseNorm(ContextLayer):
    """``Z = X + gamma * X * G / mean_C(G) + beta`` with ``G_c = ||x_c||``, the norm of a channel.

    ``||x_c||`` is the Euclidean norm over all positions: channels that respond more than the others
    in this image are amplified. gamma and beta start at 0, as in the paper.

    Args:
        eps (float): Added to the mean in the denominator. Defaults to 1e-6.
    """

    _abbr_ = 'grn'

    def __init__(self, in_channels: int, eps: float = 1e-6) -> None:
        super().__init__(in_channels)
        self.eps = eps
        self.gamma = nn.Parameter(torch.zeros(in_channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(in_channels, 1, 1))

    def reset_parameters(self) -> None:
        """Set gamma and beta to 0."""
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, C, H, W), floating point."""
        self.check_input(x)
        # A sum of squares over all positions overflows float16.
        wide = torch.promote_types(x.dtype, torch.float32)
        response = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True, dtype=wide)
        response = response / (response.mean(dim=1, keepdim=True) + self.eps)
        return x * (1 + self.gamma * response).to(x.dtype) + self.beta.to(x.dtype)
