"""Squeeze-and-excitation.

Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507, Sec. 3.
"""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn

from .context_layer import ContextLayer


@MODELS.register_module()
class SqueezeExcitation(ContextLayer):
    """``Z = X (.) sigmoid(W2 relu(W1 mean_N(X) + b1) + b2)``, one gate a channel.

    A gate lies between 0 and 1, so that no initialisation makes the layer the identity. By default
    the gates start near it: W2 = 0 and b2 = ``gate_bias``.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): C / reduction channels between W1 and W2. Defaults to 16.
        gate_bias (float, optional): Start of b2: 3 means gates of 0.953. None: b2 = 0 and W2
            Xavier-uniform, gates around 0.5. Defaults to 3.0.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, or an input that is not
            (B, in_channels, H, W).
    """

    _abbr_ = 'squeeze_excitation'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        gate_bias: float | None = 3.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        self.gate_bias = gate_bias
        inner = self.inner_channels(reduction)
        self.squeeze = nn.Conv2d(in_channels, inner, 1)
        self.excite = nn.Conv2d(inner, in_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """W1 Xavier-uniform, b1 = 0, W2 and b2 by ``gate_bias``."""
        super().reset_parameters()
        if self.gate_bias is not None:
            nn.init.zeros_(self.excite.weight)
            nn.init.constant_(self.excite.bias, self.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x (Tensor): (B, C, H, W), floating point.

        Returns:
            Tensor: (B, C, H, W).
        """
        self.check_input(x)
        squeezed = self.squeeze(x.mean(dim=(2, 3), keepdim=True)).relu()
        return x * self.excite(squeezed).sigmoid()
