"""Disentangled non-local layer.

Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020,
https://arxiv.org/abs/2006.06668, Sec. 4.
"""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .context_layer import ContextLayer, as_heads


@MODELS.register_module()
class DisentangledNonLocal(ContextLayer):
    """``z_i = x_i + Wz [sum_j (a_ij + b_j) v_j]`` with ``q, k, v = x Wq, x Wk, x Wv``.

    ``a_ij = softmax_j((q_i - mq) . (k_j - mk) / (sqrt(d) t))`` and ``b_j = softmax_j(x_j . wm)``.
    A non-local block's similarity splits into a whitened pairwise term (queries and keys minus
    their means mq and mk over the positions) and a unary one; here each has its own softmax, and
    the unary term an embedding of its own, wm. The cost is quadratic in the number of positions;
    the N x N matrix is never stored.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): d = C / reduction. Defaults to 2.
        temperature (float): t, below 1 for a sharper pairwise softmax. Defaults to 1.0.
        norm_cfg (dict, optional): Norm layer after Wz. Defaults to None.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive, or an input that is not
            (B, in_channels, H, W).
    """

    _abbr_ = 'dnl'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        temperature: float = 1.0,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        if not temperature > 0:
            raise ValueError(
                f'DisentangledNonLocal: temperature={temperature!r}; accepted: above 0'
            )
        self.temperature = temperature
        inner = self.inner_channels(reduction)
        # The means take away any bias of queries and keys, a softmax that of the mask.
        self.queries = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.keys = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.values = nn.Conv2d(in_channels, inner, 1)
        self.mask = nn.Conv2d(in_channels, 1, 1, bias=False)
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
        # (B, 1, N, d)
        queries, keys, values = (
            as_heads(conv(x)) for conv in (self.queries, self.keys, self.values)
        )
        queries = queries - queries.mean(dim=2, keepdim=True)
        keys = keys - keys.mean(dim=2, keepdim=True)
        scale = 1 / (queries.shape[3] ** 0.5 * self.temperature)
        pairwise = scaled_dot_product_attention(queries, keys, values, scale=scale)
        unary = self.mask(x).flatten(2).softmax(dim=2)[:, None] @ values  # (B, 1, 1, d)
        y = (pairwise + unary)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.output(y)
