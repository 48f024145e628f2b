"""What the compared layers share: a checked input, and an output that starts at zero."""

from __future__ import annotations

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn


def as_heads(x: Tensor) -> Tensor:
    """Lay a map out for ``scaled_dot_product_attention``.

    Its kernels without an N x N matrix want an axis of heads and contiguous channels.

    Args:
        x (Tensor): (B, C, H, W).

    Returns:
        Tensor: (B, 1, N, C).
    """
    return x.flatten(2).transpose(1, 2).contiguous()[:, None]


class ContextLayer(BaseModule):
    """Base of layers ``Z = X + branch(X)`` on (B, C, H, W).

    The branch ends in a 1x1 convolution, and a norm if there is one, whose last affine part starts
    at zero: a fresh layer is the identity. A surrounding backbone re-initialises every convolution
    and norm by its own ``init_cfg`` and calls its children's ``init_weights`` afterwards, which
    here starts from :meth:`reset_parameters` again.

    Args:
        in_channels (int): Channels C of the input.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule, applied after the
            layer's own initialisation. Defaults to None.

    Raises:
        ValueError: ``in_channels`` is not a positive integer.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = self._positive('in_channels', in_channels)

    def _positive(self, name: str, value: int) -> int:
        """Check an argument that counts something."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f'{type(self).__name__}: {name}={value!r}; accepted: a positive integer'
            )
        return value

    def _inner(self, reduction: int) -> int:
        """int: channels inside the branch, ``in_channels / reduction`` and at least 1."""
        return max(self.in_channels // self._positive('reduction', reduction), 1)

    def _add_output(self, channels: int, norm_cfg: dict | None, groups: int = 1) -> None:
        """Build the end of the branch: a 1x1 convolution back to ``in_channels``, and a norm."""
        bias = norm_cfg is None
        self.conv_out = nn.Conv2d(channels, self.in_channels, 1, groups=groups, bias=bias)
        self.norm_name = None
        if norm_cfg is not None:
            self.norm_name, norm = build_norm_layer(norm_cfg, self.in_channels)
            self.add_module(self.norm_name, norm)

    def _output(self, branch: Tensor) -> Tensor:
        """Tensor: the end of the branch, (B, C, H, W)."""
        branch = self.conv_out(branch)
        return branch if self.norm_name is None else getattr(self, self.norm_name)(branch)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__}: the input has shape {tuple(x.shape)}; '
                f'accepted: (B, {self.in_channels}, H, W)'
            )

    def reset_parameters(self) -> None:
        """Convolutions Xavier-uniform without bias, norms 1 and 0, and the branch's end 0."""
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif hasattr(module, 'reset_parameters') and module is not self:
                module.reset_parameters()
        if not hasattr(self, 'conv_out'):
            return
        last = self.conv_out if self.norm_name is None else getattr(self, self.norm_name)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def init_weights(self) -> None:
        """The layer's own initialisation, then its ``init_cfg`` if it has one."""
        self.reset_parameters()
        super().init_weights()
