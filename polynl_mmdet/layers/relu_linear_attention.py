"""ReLU linear attention.

Cai et al., "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction",
ICCV 2023, https://arxiv.org/abs/2205.14756, Sec. 3.1.
"""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .context_layer import ContextLayer


@MODELS.register_module()
class ReLULinearAttention(ContextLayer):
    """``z_i = x_i + Wz [sum_j s_ij v_j / sum_j s_ij]`` with ``s_ij = relu(q_i) . relu(k_j)``.

    ``Q, K, V = X WQ, X WK, X WV``. A similarity that is a plain dot product lets both sums over j
    be taken once for all positions: ``relu(K)^T V`` and the sum of relu(K). The cost is linear in
    N. EfficientViT's multi-scale tokens, made by small local convolutions around this global part,
    are not built.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): Q, K and V have C / reduction channels. Defaults to 2.
        num_heads (int): Groups of channels that attend on their own; the paper's have 16 or 32
            channels. Defaults to 1.
        norm_cfg (dict, optional): Norm layer after Wz. Defaults to None.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, ``num_heads`` that does not divide
            the inner channels, or an input that is not (B, in_channels, H, W).
    """

    _abbr_ = 'relu_linear_attention'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        num_heads: int = 1,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        inner = self.inner_channels(reduction)
        self.num_heads = self.check_positive('num_heads', num_heads)
        if inner % num_heads:
            raise ValueError(
                f'ReLULinearAttention: num_heads={num_heads}; accepted: a divisor of the '
                f'{inner} inner channels'
            )
        self.queries = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.keys = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.values = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.build_output(inner, norm_cfg)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Forward.

        Args:
            x (Tensor): (B, C, H, W), floating point.

        Returns:
            Tensor: (B, C, H, W).
        """
        self.check_input(x)
        # (B, heads, d, N)
        queries, keys, values = (
            conv(x).flatten(2).unflatten(1, (self.num_heads, -1))
            for conv in (self.queries, self.keys, self.values)
        )
        dtype = values.dtype
        # Sums over all positions overflow float16.
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
            queries, keys, values = queries.relu().to(wide), keys.relu().to(wide), values.to(wide)
            weighted = values @ keys.transpose(2, 3) @ queries
            total = (keys.sum(dim=3, keepdim=True) * queries).sum(dim=2, keepdim=True)
            # Where no key is similar at all, the mean is 0.
            y = (weighted / total.clamp_min(1e-12)).to(dtype)
        return x + self.output(y.flatten(1, 2).unflatten(2, x.shape[2:]))
