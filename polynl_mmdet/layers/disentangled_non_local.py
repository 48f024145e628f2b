"""Disentangled non-local layer.

Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020,
https://arxiv.org/abs/2006.06668, Sec. 4.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .context_layer import ContextLayer, as_map, as_tokens


class DisentangledNonLocal(ContextLayer):
    """``z_i = x_i + Wz [sum_j (a_ij + b_j) v_j]`` with ``q, k, v = x Wq, x Wk, x Wv``.

    ``a_ij = softmax_j((q_i - mq) . (k_j - mk) / (sqrt(d) t))`` and ``b_j = softmax_j(x_j . wm)``.
    A non-local block's similarity splits into a whitened pairwise term (queries and keys minus
    their means mq and mk over the positions) and a unary term; here each has its own softmax, and
    the unary term its own embedding wm. The cost is quadratic in the number of positions; the
    N x N matrix is never stored.

    Args:
        reduction (int): q, k and v have d = C / reduction channels. Defaults to 2.
        temperature (float): t; below 1 sharpens the pairwise softmax. Defaults to 1.0.
    """

    _abbr_ = 'dnl'

    def __init__(self, in_channels: int, reduction: int = 2, temperature: float = 1.0) -> None:
        super().__init__(in_channels, reduction)
        self.temperature = temperature
        # The means remove any bias of queries and keys, the softmax that of the mask.
        self.add_projections('queries', 'keys', bias=False)
        self.add_projections('values')
        self.mask = nn.Conv2d(in_channels, 1, 1, bias=False)
        self.conv_out = nn.Conv2d(self.inner_channels, in_channels, 1)
        self.reset_parameters()

    def branch(self, x: Tensor) -> Tensor:
        q, k, v = (as_tokens(conv(x)) for conv in (self.queries, self.keys, self.values))
        q = (q - q.mean(dim=2, keepdim=True)) / self.temperature
        k = k - k.mean(dim=2, keepdim=True)
        pairwise = scaled_dot_product_attention(q, k, v)
        unary = self.mask(x).flatten(2).softmax(dim=2)[:, None] @ v  # (B, 1, 1, d)
        return self.conv_out(as_map(pairwise + unary, x))
