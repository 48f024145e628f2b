"""Double attention.

Chen et al., "A^2-Nets: Double Attention Networks", NeurIPS 2018,
https://arxiv.org/abs/1810.11579, Sec. 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from .context_layer import ContextLayer


class DoubleAttention(ContextLayer):
    """``Z = X + Wz [(A softmax_N(B)^T) softmax_n(V)]`` with ``A, B, V = WA X, WB X, WV X``.

    Gather: each of the n maps of B, a softmax over the N positions, takes one weighted mean of the
    features A. Distribute: each position picks from these n descriptors by V, a softmax over the n.
    The cost is linear in N.

    Args:
        reduction (int): A, B and V have n = C / reduction channels. Defaults to 4, as in the
            paper's ResNet-50.
    """

    _abbr_ = 'double_attention'

    def __init__(self, in_channels: int, reduction: int = 4) -> None:
        super().__init__(in_channels, reduction)
        self.add_projections('features', 'gather', 'distribute')
        self.conv_out = nn.Conv2d(self.inner_channels, in_channels, 1)
        self.reset_parameters()

    def branch(self, x: Tensor) -> Tensor:
        features = self.features(x).flatten(2)
        attention = self.gather(x).flatten(2).softmax(dim=2)
        descriptors = features @ attention.transpose(1, 2)  # (B, channels, n)
        y = descriptors @ self.distribute(x).flatten(2).softmax(dim=1)
        return self.conv_out(y.unflatten(2, x.shape[2:]))
