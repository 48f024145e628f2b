"""Squeeze-and-excitation.

Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507, Sec. 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from .context_layer import ContextLayer


class SqueezeExcitation(ContextLayer):
    """``Z = X * sigmoid(W2 relu(W1 mean_N(X) + b1) + b2)``, one gate per channel.

    The gates are below 1, so the layer cannot start as the identity. By default it starts near it:
    W2 = 0 and b2 = ``gate_bias``.

    Args:
        reduction (int): C / reduction channels between W1 and W2. Defaults to 16.
        gate_bias (float, optional): Initial b2; 3 gives gates of 0.953. None: b2 = 0 and W2
            Xavier-uniform, gates around 0.5. Defaults to 3.0.
    """

    _abbr_ = 'squeeze_excitation'

    def __init__(
        self, in_channels: int, reduction: int = 16, gate_bias: float | None = 3.0
    ) -> None:
        super().__init__(in_channels, reduction)
        self.gate_bias = gate_bias
        self.add_projections('squeeze')
        self.conv_out = nn.Conv2d(self.inner_channels, in_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """W1 Xavier-uniform, b1 = 0, W2 and b2 by ``gate_bias``."""
        super().reset_parameters()
        if self.gate_bias is None:
            nn.init.xavier_uniform_(self.conv_out.weight)
        else:
            nn.init.constant_(self.conv_out.bias, self.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, C, H, W), floating point."""
        self.check_input(x)
        squeezed = self.squeeze(x.mean(dim=(2, 3), keepdim=True)).relu()
        return x * self.conv_out(squeezed).sigmoid()
