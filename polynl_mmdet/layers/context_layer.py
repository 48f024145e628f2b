"""Base class of layers that add a branch to their input."""

from __future__ import annotations

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn


def as_heads(x: Tensor) -> Tensor:
    """Reshape a map for ``scaled_dot_product_attention``.

    Its kernels without an N x N matrix need an axis of heads and contiguous channels.

    Args:
        x (Tensor): (B, C, H, W).

    Returns:
        Tensor: (B, 1, N, C).
    """
    return x.flatten(2).transpose(1, 2).contiguous()[:, None]


class ContextLayer(BaseModule):
    """Base class of layers ``Z = X + branch(X)`` on (B, C, H, W).

    A subclass sizes its branch by :meth:`inner_channels`, builds the end of it by
    :meth:`build_output`, calls :meth:`reset_parameters` last in its constructor, and in ``forward``
    uses :meth:`check_input` and :meth:`output`. docs/adding_a_layer.md has an example.

    The end of the branch is a 1x1 convolution, and a norm if there is one. The last affine part
    starts at zero, so that a fresh layer is the identity. A surrounding backbone re-initialises
    every convolution and norm by its own ``init_cfg`` and calls its children's ``init_weights``
    afterwards, which here starts from :meth:`reset_parameters` again.

    Args:
        in_channels (int): Channels C of the input.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule, applied after the
            layer's own initialisation. Defaults to None.

    Raises:
        ValueError: ``in_channels`` is not a positive integer.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = self.check_positive('in_channels', in_channels)

    def check_positive(self, name: str, value: int) -> int:
        """Check that an argument is a positive integer.

        Args:
            name (str): The argument's name, for the message.
            value (int): Its value.

        Returns:
            int: ``value``.

        Raises:
            ValueError: It is not a positive integer.
        """
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f'{type(self).__name__}: {name}={value!r}; accepted: a positive integer'
            )
        return value

    def inner_channels(self, reduction: int) -> int:
        """Compute the number of channels inside the branch.

        Args:
            reduction (int): Positive divisor.

        Returns:
            int: ``in_channels // reduction``, at least 1.
        """
        return max(self.in_channels // self.check_positive('reduction', reduction), 1)

    def build_output(self, channels: int, norm_cfg: dict | None, groups: int = 1) -> None:
        """Build the end of the branch: a 1x1 convolution back to ``in_channels``, and a norm.

        Args:
            channels (int): Channels of what :meth:`output` will be given.
            norm_cfg (dict, optional): The norm; None for a convolution with bias instead.
            groups (int): Of the convolution. Defaults to 1.
        """
        bias = norm_cfg is None
        self.conv_out = nn.Conv2d(channels, self.in_channels, 1, groups=groups, bias=bias)
        self.norm_name = None
        if norm_cfg is not None:
            self.norm_name, norm = build_norm_layer(norm_cfg, self.in_channels)
            self.add_module(self.norm_name, norm)

    def output(self, branch: Tensor) -> Tensor:
        """Apply the end of the branch.

        Args:
            branch (Tensor): (B, channels, H, W), or of any size that broadcasts to the input's.

        Returns:
            Tensor: (B, C, H, W), or of that size.
        """
        branch = self.conv_out(branch)
        return branch if self.norm_name is None else getattr(self, self.norm_name)(branch)

    def check_input(self, x: Tensor) -> None:
        """Check that an input is (B, in_channels, H, W).

        Args:
            x (Tensor): The input.

        Raises:
            ValueError: It has another shape.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__}: the input has shape {tuple(x.shape)}; '
                f'accepted: (B, {self.in_channels}, H, W)'
            )

    def reset_parameters(self) -> None:
        """Set convolutions to Xavier-uniform with zero bias, norms to 1 and 0, the output to 0."""
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
        """Run the layer's own initialisation, then its ``init_cfg`` if it has one."""
        self.reset_parameters()
        super().init_weights()
