"""ReLU linear attention.

Cai et al., "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction",
ICCV 2023, https://arxiv.org/abs/2205.14756, Sec. 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .context_layer import ContextLayer, split_heads


class ReLULinearAttention(ContextLayer):
    """``z_i = x_i + Wz [sum_j s_ij v_j / sum_j s_ij]`` with ``s_ij = relu(q_i) . relu(k_j)``.

    ``Q, K, V = X WQ, X WK, X WV``. The similarity is a plain dot product, so both sums over j are
    taken once for all positions: ``relu(K)^T V`` and the sum of relu(K). The cost is linear in the
    number of positions. EfficientViT's multi-scale tokens are not built.

    Args:
        reduction (int): Q, K and V have C / reduction channels. Defaults to 2.
        num_heads (int): Heads; the paper's have 16 or 32 channels. Defaults to 1.
    """

    _abbr_ = 'relu_linear_attention'

    def __init__(self, in_channels: int, reduction: int = 2, num_heads: int = 1) -> None:
        super().__init__(in_channels, reduction, num_heads)
        self.add_projections('queries', 'keys', 'values', bias=False)
        self.conv_out = nn.Conv2d(self.inner_channels, in_channels, 1)
        self.reset_parameters()

    def branch(self, x: Tensor) -> Tensor:
        q, k, v = (
            split_heads(conv(x), self.num_heads) for conv in (self.queries, self.keys, self.values)
        )
        dtype = v.dtype
        # Sums over all positions overflow float16.
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(dtype, torch.float32)
            q, k, v = q.relu().to(wide), k.relu().to(wide), v.to(wide)
            weighted = v @ k.transpose(2, 3) @ q
            total = (k.sum(dim=3, keepdim=True) * q).sum(dim=2, keepdim=True)
            y = (weighted / total.clamp_min(1e-12)).to(dtype)  # 0 where no key is similar
        return self.conv_out(y.flatten(1, 2).unflatten(2, x.shape[2:]))
