"""Efficient attention.

Shen et al., "Efficient Attention: Attention with Linear Complexities", WACV 2021,
https://arxiv.org/abs/1812.01243, Sec. 3.2.
"""

from __future__ import annotations

from torch import Tensor, nn

from .context_layer import ContextLayer, split_heads


class EfficientAttention(ContextLayer):
    """``Z = X + Wz [softmax_d(Q) (softmax_N(K)^T V)]`` with ``Q, K, V = X WQ, X WK, X WV``.

    The softmax of the queries is over the d channels of a position, that of the keys over the N
    positions of a channel. Keys and values are multiplied first, to d global context vectors, which
    each position mixes by its query. The cost is linear in N.

    Args:
        reduction (int): Q, K and V have C / reduction channels. Defaults to 2.
    """

    _abbr_ = 'efficient_attention'

    def __init__(self, in_channels: int, reduction: int = 2, num_heads: int = 1) -> None:
        super().__init__(in_channels, reduction, num_heads)
        self.add_projections('queries', 'keys', 'values')
        self.conv_out = nn.Conv2d(self.inner_channels, in_channels, 1)
        self.reset_parameters()

    def branch(self, x: Tensor) -> Tensor:
        q, k, v = (
            split_heads(conv(x), self.num_heads) for conv in (self.queries, self.keys, self.values)
        )
        context = v @ k.softmax(dim=3).transpose(2, 3)  # (B, heads, d, d)
        y = context @ q.softmax(dim=2)
        return self.conv_out(y.flatten(1, 2).unflatten(2, x.shape[2:]))
