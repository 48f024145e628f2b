"""Spatial Bias.

Go and Ryu, "Spatial Bias for Attention-free Non-local Neural Networks", 2023,
https://arxiv.org/abs/2302.12505, Sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .context_layer import ContextLayer


class SpatialBiasTerm(ContextLayer):
    """Term that Spatial Bias adds to the result of a 1 x 1 convolution: ``W relu(BN(maps(X)))``.

    ``maps(X)``: a 1 x 1 convolution to S + 2 channels, BN and ReLU; adaptive average pooling to
    r x r; the r^2 positions become the channels of a 1-D convolution (r^2 to r^2, kernel 3, no
    padding) along the S + 2 channels, which gives S maps; these are resized bilinearly.

    The paper concatenates the maps to a 3 x 3 convolution's output, before a batch norm, ReLU and a
    1 x 1 convolution. A batch norm treats each channel separately and a convolution is linear, so
    the maps can have a batch norm and a 1 x 1 convolution W of their own whose results are added:
    the same function, in which every other weight keeps its shape. W starts at 0, so adding the
    term leaves a network's outputs as they are.

    A ``stride`` belongs to the first convolution, and the strided map is pooled, as in the code
    that the authors uploaded first; their present code pools the map without a stride.

    Args:
        in_channels (int): Channels of X.
        out_channels (int): Channels of the term.
        num_maps (int): S. Defaults to 3.
        grid (int): r. Defaults to 10.
        stride (int): Defaults to 1.
        norm_layer (Callable): Norm of a number of channels. Defaults to nn.BatchNorm2d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_maps: int = 3,
        grid: int = 10,
        stride: int = 1,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__(in_channels)
        self.num_maps = num_maps
        self.grid = grid
        self.reduce = nn.Conv2d(in_channels, num_maps + 2, 1, stride=stride, bias=False)
        self.reduce_norm = norm_layer(num_maps + 2)
        self.mix = nn.Conv1d(grid**2, grid**2, 3)
        self.maps_norm = norm_layer(num_maps)
        self.conv_out = nn.Conv2d(num_maps, out_channels, 1, bias=False)
        self.reset_parameters()

    def maps(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the S maps (B, S, *size) of (B, in_channels, H, W)."""
        reduced = self.reduce_norm(self.reduce(x)).relu()
        pooled = adaptive_avg_pool2d(reduced, self.grid)
        maps = self.mix(pooled.flatten(2).transpose(1, 2)).transpose(1, 2)
        maps = maps.reshape(*maps.shape[:2], self.grid, self.grid)  # torch 2.0 exports it
        return interpolate(maps, size=size, mode='bilinear', align_corners=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the term (B, out_channels, *size) of (B, in_channels, H, W)."""
        self.check_input(x)
        return self.conv_out(self.maps_norm(self.maps(x, size)).relu())


class SpatialBias(SpatialBiasTerm):
    """``Z = X + W relu(BN(maps(X)))``: the term of Spatial Bias as a layer of its own.

    The paper's place for it is inside a bottleneck (``SpatialBiasResNet``); as a layer it can stand
    where others do and be compared with them. Args as for :class:`SpatialBiasTerm`.
    """

    _abbr_ = 'spatial_bias'

    def __init__(self, in_channels: int, num_maps: int = 3, grid: int = 10) -> None:
        super().__init__(in_channels, in_channels, num_maps, grid)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, C, H, W), floating point."""
        return x + super().forward(x, x.shape[2:])
