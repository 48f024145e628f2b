"""Double attention.

Chen et al., "A^2-Nets: Double Attention Networks", NeurIPS 2018,
https://arxiv.org/abs/1810.11579, Sec. 3.
"""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn

from .context_layer import ContextLayer


@MODELS.register_module()
class DoubleAttention(ContextLayer):
    """``Z = X + Wz [(A softmax_N(B)^T) softmax_n(V)]`` with ``A, B, V = WA X, WB X, WV X``.

    First gather: each of the n maps of B, a softmax over the N positions, takes one weighted mean
    of the m features in A. Then distribute: every position picks from these n descriptors by V, a
    softmax over the n at this position. The cost is linear in N.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): m = n = C / reduction. Defaults to 4, as in the paper's ResNet-50.
        norm_cfg (dict, optional): Norm layer after Wz. Defaults to None.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, or an input that is not
            (B, in_channels, H, W).
    """

    _abbr_ = 'double_attention'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 4,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        inner = self.inner_channels(reduction)
        self.features = nn.Conv2d(in_channels, inner, 1)
        self.gather = nn.Conv2d(in_channels, inner, 1)
        self.distribute = nn.Conv2d(in_channels, inner, 1)
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
        features = self.features(x).flatten(2)
        where = self.gather(x).flatten(2).softmax(dim=2)
        descriptors = features @ where.transpose(1, 2)  # (B, m, n)
        picked = descriptors @ self.distribute(x).flatten(2).softmax(dim=1)
        return x + self.output(picked.unflatten(2, x.shape[2:]))
