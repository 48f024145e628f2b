"""Spatial Bias.

Go and Ryu, "Spatial Bias for Attention-free Non-local Neural Networks", 2023,
https://arxiv.org/abs/2302.12505, Sec. 3.
"""

from __future__ import annotations

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .context_layer import ContextLayer


class SpatialBiasTerm(ContextLayer):
    """Term that Spatial Bias adds to the result of a 1x1 convolution: ``W relu(BN(maps(X)))``.

    ``maps(X)``: a 1x1 convolution to S + 2 channels, BN and ReLU; adaptive average pooling to
    r x r; the r^2 positions become the channels of a 1-D convolution (r^2 to r^2, kernel 3, no
    padding) that slides along the S + 2 channels and gives S maps; these are resized bilinearly.

    The paper concatenates the maps to a 3x3 convolution's output, before a batch norm, ReLU and a
    1x1 convolution. A batch norm works on each channel alone and a convolution is linear, so the
    maps can as well have a batch norm and a 1x1 convolution W of their own whose results are added:
    the same function, in which every other weight keeps the shape that it has without the maps.
    W starts at 0, so that a network which the term is added to computes what it did before.

    With a ``stride``, the first convolution has it, and the map that is pooled is the strided one.
    So it is in the code that the authors uploaded first; their present code pools the map without a
    stride, which gives somewhat other averages.

    With ``norm_eval=True`` (usual in detectors) both batch norms keep their initial statistics,
    mean 0 and variance 1: they only scale and shift each channel by learned numbers.

    Args:
        in_channels (int): Channels of the input X.
        out_channels (int): Channels of the term.
        num_maps (int): S. Defaults to 3.
        grid (int): r. Defaults to 10.
        stride (int): Stride of the first convolution. Defaults to 1.
        norm_cfg (dict): Norm layers. Defaults to dict(type='BN').
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, or an input that is not
            (B, in_channels, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_maps: int = 3,
        grid: int = 10,
        stride: int = 1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006  Only read.
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        self.num_maps = self.check_positive('num_maps', num_maps)
        self.grid = self.check_positive('grid', grid)
        self.check_positive('out_channels', out_channels)
        self.check_positive('stride', stride)
        self.reduce = nn.Conv2d(in_channels, num_maps + 2, 1, stride=stride, bias=False)
        self.reduce_norm = build_norm_layer(norm_cfg, num_maps + 2)[1]
        self.mix = nn.Conv1d(grid**2, grid**2, 3)
        self.maps_norm = build_norm_layer(norm_cfg, num_maps)[1]
        self.expand = nn.Conv2d(num_maps, out_channels, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set convolutions to Xavier-uniform, norms to 1 and 0, W to 0."""
        super().reset_parameters()
        nn.init.zeros_(self.expand.weight)

    def maps(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the S maps.

        Args:
            x (Tensor): (B, in_channels, H, W), floating point, of any size.
            size (tuple[int, int]): Height and width of the maps.

        Returns:
            Tensor: (B, S, *size).
        """
        self.check_input(x)
        reduced = self.reduce_norm(self.reduce(x)).relu()
        pooled = adaptive_avg_pool2d(reduced, self.grid)
        maps = self.mix(pooled.flatten(2).transpose(1, 2)).transpose(1, 2)
        maps = maps.unflatten(2, (self.grid, self.grid))
        return interpolate(maps, size=size, mode='bilinear', align_corners=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the term to add.

        Args:
            x (Tensor): (B, in_channels, H, W), floating point.
            size (tuple[int, int]): Height and width of what the term is added to.

        Returns:
            Tensor: (B, out_channels, *size).
        """
        return self.expand(self.maps_norm(self.maps(x, size)).relu())


@MODELS.register_module()
class SpatialBias(SpatialBiasTerm):
    """``Z = X + W relu(BN(maps(X)))``: the term of Spatial Bias as a plugin of its own.

    The paper's place for it is inside a bottleneck (``SpatialBiasResNet``); alone, it can stand
    wherever other layers do and be compared with them.

    Args:
        in_channels (int): Channels C of the input.
        num_maps (int): Number S of maps. Defaults to 3.
        grid (int): Side r of the grid on which they are computed. Defaults to 10.
        norm_cfg (dict): Norm layers. Defaults to dict(type='BN').
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, or an input that is not
            (B, in_channels, H, W).
    """

    _abbr_ = 'spatial_bias'

    def __init__(
        self,
        in_channels: int,
        num_maps: int = 3,
        grid: int = 10,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006  Only read.
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            in_channels, in_channels, num_maps, grid, norm_cfg=norm_cfg, init_cfg=init_cfg
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x (Tensor): (B, C, H, W), floating point.

        Returns:
            Tensor: (B, C, H, W).
        """
        return x + super().forward(x, x.shape[2:])
