"""MobileNetV1, the backbone of the lighter RetinaFace.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications
(2017), https://arxiv.org/abs/1704.04861. mmdet has MobileNetV2 only.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Output channels at width 1 and stride of each depthwise-separable block, stage by stage.
STAGES = (
    ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    ((1024, 2), (1024, 1)),
)
STEM_CHANNELS = 32


@MODELS.register_module()
class MobileNetV1(BaseModule):
    """MobileNetV1 in three stages, whose outputs have strides 8, 16 and 32.

    The first stage begins with the stem, a 3x3 convolution of stride 2.

    Args:
        widen_factor (float): Factor on the channels of every layer: 0.25 gives 64, 128 and 256
            output channels. Defaults to 1.0.
        out_indices (Sequence[int]): Stages (0 to 2) whose outputs are returned. Defaults to
            (0, 1, 2).
        frozen_stages (int): Number of frozen stages, weights and statistics, 0 to 3. Defaults to 0.
        norm_cfg, act_cfg (dict): Defaults to BN, leaky ReLU of slope 0.1.
        norm_eval (bool): Whether norm layers keep their statistics in training. Defaults to False.
        init_cfg (dict | list[dict], optional): Defaults to Kaiming for convolutions, 1 for norms.

    Raises:
        ValueError: A stage that does not exist.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2),
        frozen_stages: int = 0,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        norm_eval: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        norms = dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])
        super().__init__(init_cfg or [dict(type='Kaiming', layer='Conv2d'), norms])
        if not out_indices or not set(out_indices) <= {0, 1, 2}:
            raise ValueError(f'backbone.out_indices: got {out_indices}, expected some of 0, 1, 2')
        if frozen_stages not in range(len(STAGES) + 1):
            raise ValueError(f'backbone.frozen_stages: got {frozen_stages}, expected 0 to 3')
        self.out_indices = tuple(sorted(out_indices))
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        layer_cfg = dict(
            norm_cfg=norm_cfg or dict(type='BN'),
            act_cfg=act_cfg or dict(type='LeakyReLU', negative_slope=0.1),
        )
        channels = int(STEM_CHANNELS * widen_factor)
        layers: list[nn.Module] = [ConvModule(3, channels, 3, stride=2, padding=1, **layer_cfg)]
        for index, blocks in enumerate(STAGES):
            for width, stride in blocks:
                in_channels, channels = channels, int(width * widen_factor)
                sizes = dict(kernel_size=3, stride=stride, padding=1)
                layers.append(
                    DepthwiseSeparableConvModule(in_channels, channels, **sizes, **layer_cfg)
                )
            self.add_module(f'stage{index + 1}', nn.Sequential(*layers))
            layers = []
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute maps of ceil(H / s) x ceil(W / s), s = 8, 16, 32, of images (B, 3, H, W)."""
        outs = []
        for index in range(len(STAGES)):
            x = getattr(self, f'stage{index + 1}')(x)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _freeze(self) -> None:
        for index in range(self.frozen_stages):
            stage = getattr(self, f'stage{index + 1}')
            stage.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> MobileNetV1:
        """Set training mode, except for frozen stages and, with norm_eval, norm layers."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
