"""Agent attention.

Han et al., "Agent Attention: On the Integration of Softmax and Linear Attention", ECCV 2024,
https://arxiv.org/abs/2312.08874, Sec. 3.
"""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, scaled_dot_product_attention

from .context_layer import ContextLayer


@MODELS.register_module()
class AgentAttention(ContextLayer):
    """``Z = X + Wz [softmax(Q A^T / sqrt(d)) softmax(A K^T / sqrt(d)) V + DWC(V)]``.

    ``Q, K, V = X WQ, X WK, X WV``. The n agents A are Q, averaged over the cells of a grid laid
    over the map. They gather from all positions, and every position picks from what they gathered.
    DWC is a 3 x 3 depthwise convolution. The cost is linear in the number N of positions. The
    paper's biases on both softmaxes, learned for one map size, are not built: maps here come in
    any size.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): d = C / reduction, over all heads. Defaults to 2.
        num_heads (int): Groups of channels that attend on their own. Defaults to 1.
        grid (int): Side of the agents' grid, so that n = grid^2. Defaults to 7, as in the paper.
        norm_cfg (dict, optional): Norm layer after Wz. Defaults to None.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, ``num_heads`` that does not divide
            the inner channels, or an input that is not (B, in_channels, H, W).
    """

    _abbr_ = 'agent_attention'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        num_heads: int = 1,
        grid: int = 7,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        inner = self.inner_channels(reduction)
        self.num_heads = self.check_positive('num_heads', num_heads)
        self.grid = self.check_positive('grid', grid)
        if inner % num_heads:
            raise ValueError(
                f'AgentAttention: num_heads={num_heads}; accepted: a divisor of the '
                f'{inner} inner channels'
            )
        self.queries = nn.Conv2d(in_channels, inner, 1)
        self.keys = nn.Conv2d(in_channels, inner, 1)
        self.values = nn.Conv2d(in_channels, inner, 1)
        self.local = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.build_output(inner, norm_cfg)
        self.reset_parameters()

    def _heads(self, x: Tensor) -> Tensor:
        """Tensor: (B, inner, H, W) as (B, heads, N, inner / heads)."""
        return x.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Forward.

        Args:
            x (Tensor): (B, C, H, W), floating point.

        Returns:
            Tensor: (B, C, H, W).
        """
        self.check_input(x)
        queries, keys, values = self.queries(x), self.keys(x), self.values(x)
        agents = self._heads(adaptive_avg_pool2d(queries, self.grid))
        gathered = scaled_dot_product_attention(agents, self._heads(keys), self._heads(values))
        picked = scaled_dot_product_attention(self._heads(queries), agents, gathered)
        y = picked.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])
        return x + self.output(y + self.local(values))
