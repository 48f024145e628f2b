"""Global response normalisation.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023,
https://arxiv.org/abs/2301.00808, Sec. 3.2.
"""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .context_layer import ContextLayer


@MODELS.register_module()
class GlobalResponseNorm(ContextLayer):
    """``Z = X + gamma (.) X (.) G / mean_C(G) + beta`` with ``G_c = |x_c|``, one number a channel.

    ``|x_c|`` is the Euclidean norm of a channel over all positions: a channel that responds more
    than the others in this image is strengthened. gamma and beta, one number a channel each, start
    at zero as in the paper: a fresh layer is the identity.

    Args:
        in_channels (int): Channels C of the input.
        eps (float): Added to the mean in the denominator. Defaults to 1e-6.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: ``in_channels`` is not a positive integer, or an input is not
            (B, in_channels, H, W).
    """

    _abbr_ = 'grn'

    def __init__(
        self, in_channels: int, eps: float = 1e-6, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(in_channels, init_cfg)
        self.eps = eps
        self.gamma = nn.Parameter(torch.empty(in_channels, 1, 1))
        self.beta = nn.Parameter(torch.empty(in_channels, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gamma and beta to 0."""
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """Forward.

        Args:
            x (Tensor): (B, C, H, W), floating point.

        Returns:
            Tensor: (B, C, H, W).
        """
        self.check_input(x)
        # A sum of squares over all positions overflows float16.
        wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        response = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True, dtype=wide)
        response = response / (response.mean(dim=1, keepdim=True) + self.eps)
        return x * (1 + self.gamma * response).to(x.dtype) + self.beta.to(x.dtype)
