"""Agent attention.

Han et al., "Agent Attention: On the Integration of Softmax and Linear Attention", ECCV 2024,
https://arxiv.org/abs/2312.08874, Sec. 3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, scaled_dot_product_attention

from .context_layer import ContextLayer, as_map, as_tokens


class AgentAttention(ContextLayer):
    """``Z = X + Wz [softmax(Q A^T / sqrt(d)) softmax(A K^T / sqrt(d)) V + DWC(V)]``.

    ``Q, K, V = X WQ, X WK, X WV``. The agents A are Q, average-pooled to a grid. They gather from
    all positions, and each position picks from what they gathered. DWC is a 3 x 3 depthwise
    convolution. The cost is linear in the number of positions. The paper's biases on both softmaxes
    are not built: they are learned for one size of map.

    Args:
        reduction (int): Q, K and V have C / reduction channels. Defaults to 2.
        grid (int): Side of the agents' grid. Defaults to 7, as in the paper.
    """

    _abbr_ = 'agent_attention'

    def __init__(
        self, in_channels: int, reduction: int = 2, num_heads: int = 1, grid: int = 7
    ) -> None:
        super().__init__(in_channels, reduction, num_heads)
        self.grid = grid
        inner = self.inner_channels
        self.add_projections('queries', 'keys', 'values')
        self.local = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.conv_out = nn.Conv2d(inner, in_channels, 1)
        self.reset_parameters()

    def branch(self, x: Tensor) -> Tensor:
        q, k, v = self.queries(x), self.keys(x), self.values(x)
        agents = as_tokens(adaptive_avg_pool2d(q, self.grid), self.num_heads)
        q, k, tokens = (as_tokens(t, self.num_heads) for t in (q, k, v))
        gathered = scaled_dot_product_attention(agents, k, tokens)
        y = scaled_dot_product_attention(q, agents, gathered)
        return self.conv_out(as_map(y, x) + self.local(v))
