"""ResNet with Spatial Bias in its bottlenecks.

Go and Ryu, "Spatial Bias for Attention-free Non-local Neural Networks", 2023,
https://arxiv.org/abs/2302.12505, Sec. 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from polynl_mmdet.layers import SpatialBiasTerm

from .resnet_sites import SiteResNet


class SpatialBiasBottleneck(Bottleneck):
    """mmdet's bottleneck with Spatial Bias: S maps, made from conv1's output.

    The paper concatenates the maps to conv2's output. Here they have a norm and a 1x1 convolution
    of their own, added to conv3's output: the same function (see SpatialBiasTerm), in which bn2 and
    conv3 keep a plain ResNet's shapes, so its weights load. Plugins at 'after_conv2' see conv2's
    channels only.

    Args:
        num_maps (int): S. Defaults to 3.
        grid (int): Side r of the grid on which the maps are computed. Defaults to 10.
        **kwargs: As for mmdet's Bottleneck.
    """

    def __init__(self, *args, num_maps: int = 3, grid: int = 10, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.spatial_bias = SpatialBiasTerm(
            self.planes,
            self.planes * self.expansion,
            num_maps,
            grid,
            stride=self.conv2_stride,
            norm_layer=lambda channels: build_norm_layer(self.norm_cfg, channels)[1],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inplanes, H, W) to (B, 4 planes, H / stride, W / stride)."""
        if self.with_cp and x.requires_grad:
            return self.relu(checkpoint(self._residual_sum, x, use_reentrant=False))
        return self.relu(self._residual_sum(x))

    def _residual_sum(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self._plugins(out, 1)
        reduced = out
        out = self.relu(self.norm2(self.conv2(out)))
        out = self._plugins(out, 2)
        out = self.conv3(out) + self.spatial_bias(reduced, out.shape[2:])
        out = self._plugins(self.norm3(out), 3)
        return out + (x if self.downsample is None else self.downsample(x))

    def _plugins(self, out: Tensor, conv: int) -> Tensor:
        if not self.with_plugins:
            return out
        return self.forward_plugin(out, getattr(self, f'after_conv{conv}_plugin_names'))


@MODELS.register_module()
class SpatialBiasResNet(SiteResNet):
    """SiteResNet with Spatial Bias in every bottleneck of selected stages.

    A plain ResNet's state dict loads with only the ``spatial_bias`` keys missing, and the outputs
    are a plain ResNet's until these are trained.

    Args:
        depth (int): 50, 101 or 152.
        num_maps (int): Maps S per bottleneck. Defaults to 3.
        grid (int): Side r of the maps' grid. Defaults to 10.
        bias_stages (Sequence[bool]): Which of c2 to c5 have it. Defaults to c2 to c4.
        **kwargs: As for SiteResNet: ``plugins`` and ``sites`` add other layers.

    Raises:
        ValueError: A depth without bottlenecks, or ``bias_stages`` that do not fit the stages.
    """

    def __init__(
        self,
        depth: int,
        num_maps: int = 3,
        grid: int = 10,
        bias_stages: Sequence[bool] = (True, True, True, False),
        **kwargs,
    ) -> None:
        if self.arch_settings.get(depth, (None,))[0] is not Bottleneck:
            raise ValueError(f'backbone.depth: got {depth!r}, expected 50, 101 or 152')
        if len(bias_stages) != (stages := kwargs.get('num_stages', 4)):
            raise ValueError(
                f'backbone.bias_stages: got {len(bias_stages)} values, expected {stages} booleans'
            )
        self.bias_stages = tuple(bias_stages)
        self.bias_cfg = dict(num_maps=num_maps, grid=grid)
        super().__init__(depth=depth, **kwargs)

    def make_res_layer(self, **kwargs) -> nn.Sequential:
        """Build the next stage, with Spatial Bias if it is selected."""
        if self.bias_stages[len(self.res_layers)]:
            kwargs.update(block=SpatialBiasBottleneck, **self.bias_cfg)
        return super().make_res_layer(**kwargs)
