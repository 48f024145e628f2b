"""Base class of layers that add a branch to their input."""

from __future__ import annotations

from torch import Tensor, nn


class ContextLayer(nn.Module):
    """Layer ``Z = X + branch(X)`` on (B, C, H, W) that starts as the identity.

    A subclass builds its branch, ends it in ``self.conv_out`` (or any layer with weight and bias),
    calls :meth:`reset_parameters` last in its constructor, and implements ``branch(x)``, which
    gives (B, C, H, W) or a shape that broadcasts to it.

    mmengine's BaseModules initialize all convolutions inside them by their own ``init_cfg`` and
    call ``init_weights`` of their children afterwards: here it restores the identity.

    Args:
        in_channels (int): Channels C.
        reduction (int): The branch has ``inner_channels`` = C // reduction, at least 1. Defaults
            to 1.
        num_heads (int): Groups of the inner channels that attend separately. Defaults to 1.

    Raises:
        ValueError: ``num_heads`` does not divide the inner channels.
    """

    def __init__(self, in_channels: int, reduction: int = 1, num_heads: int = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.inner_channels = max(in_channels // reduction, 1)
        self.num_heads = num_heads
        if self.inner_channels % num_heads:
            raise ValueError(
                f'{type(self).__name__}: got num_heads={num_heads}, expected a divisor of '
                f'{self.inner_channels} (in_channels / reduction)'
            )

    def add_projections(self, *names: str, bias: bool = True) -> None:
        """Add 1 x 1 convolutions to the inner channels under these names."""
        for name in names:
            self.add_module(name, nn.Conv2d(self.in_channels, self.inner_channels, 1, bias=bias))

    def reset_parameters(self) -> None:
        """Xavier-uniform weights, zero biases, norms at 1 and 0, and ``conv_out`` at 0."""
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif module is not self and hasattr(module, 'reset_parameters'):
                module.reset_parameters()
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def init_weights(self) -> None:
        """Called by a surrounding mmengine BaseModule, after its ``init_cfg``."""
        self.reset_parameters()

    def check_input(self, x: Tensor) -> None:
        """Raise ValueError unless ``x`` is (B, in_channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__}: got input {tuple(x.shape)}, '
                f'expected (B, {self.in_channels}, H, W)'
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, C, H, W), floating point."""
        self.check_input(x)
        return x + self.branch(x)


def split_heads(x: Tensor, num_heads: int = 1) -> Tensor:
    """Reshape (B, C, H, W) to (B, heads, C / heads, N)."""
    return x.flatten(2).unflatten(1, (num_heads, -1))


def as_tokens(x: Tensor, num_heads: int = 1) -> Tensor:
    """Reshape (B, C, H, W) to (B, heads, N, C / heads) for ``scaled_dot_product_attention``.

    Contiguous, which its kernels without an N x N matrix need.
    """
    return split_heads(x, num_heads).transpose(2, 3).contiguous()


def as_map(tokens: Tensor, like: Tensor) -> Tensor:
    """Reshape (B, heads, N, d) back to (B, heads * d, H, W), H and W as in ``like``."""
    return tokens.transpose(2, 3).flatten(1, 2).unflatten(2, like.shape[2:])
