"""Efficient attention.

Shen et al., "Efficient Attention: Attention with Linear Complexities", WACV 2021,
https://arxiv.org/abs/1812.01243, Sec. 3.2.
"""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn

from .context_layer import ContextLayer


@MODELS.register_module()
class EfficientAttention(ContextLayer):
    """``Z = X + Wz [softmax_d(Q) (softmax_N(K)^T V)]`` with ``Q, K, V = X WQ, X WK, X WV``.

    The queries' softmax runs over the d channels of a position, the keys' over the N positions of
    a channel. Keys and values are multiplied first: d global context vectors, which every
    position mixes by its query. The cost is linear in N.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): Keys and values have C / reduction channels. Defaults to 2.
        num_heads (int): Groups of channels that attend on their own. Defaults to 1.
        norm_cfg (dict, optional): Norm layer after Wz. Defaults to None.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, ``num_heads`` that does not divide
            the inner channels, or an input that is not (B, in_channels, H, W).
    """

    _abbr_ = 'efficient_attention'

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
                f'EfficientAttention: num_heads={num_heads}; accepted: a divisor of the '
                f'{inner} inner channels'
            )
        self.queries = nn.Conv2d(in_channels, inner, 1)
        self.keys = nn.Conv2d(in_channels, inner, 1)
        self.values = nn.Conv2d(in_channels, inner, 1)
        self.build_output(inner, norm_cfg)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

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
        context = values @ keys.softmax(dim=3).transpose(2, 3)  # (B, heads, d_v, d_k)
        mixed = context @ queries.softmax(dim=2)
        return x + self.output(mixed.flatten(1, 2).unflatten(2, x.shape[2:]))
