"""Feature pyramid of the lighter RetinaFace: the merged map is what is upsampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .conv_choices import DEFAULT_INIT, light_act_cfg, zero_offsets


@MODELS.register_module()
class MergeFPN(BaseModule):
    """Top-down pyramid that applies a 3x3 convolution to each sum before it is upsampled.

    mmdet's FPN (Lin et al., CVPR 2017) upsamples the sums and smooths the outputs. Here the
    smoothed map is upsampled (nearest, to the finer map's exact size) and added to the next
    lateral. The coarsest output is its lateral.

    Args:
        in_channels (Sequence[int]): Channels of the backbone's maps, fine to coarse.
        out_channels (int): Channels of every output.
        conv_cfg (dict, optional): Convolution of the 3x3 merges, e.g. ``dict(type='DCNv2',
            deform_groups=1)``. Defaults to None (Conv2d).
        norm_cfg (dict): Norm layer. Defaults to BN.
        act_cfg (dict, optional): Activation. None: leaky ReLU of slope 0.1
            up to 64 channels, else ReLU. Defaults to None.
        init_cfg (dict | list[dict], optional): Defaults to Xavier (uniform) for convolutions.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or DEFAULT_INIT)
        self.in_channels = list(in_channels)
        layer_cfg = dict(
            norm_cfg=norm_cfg or dict(type='BN'), act_cfg=act_cfg or light_act_cfg(out_channels)
        )
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, **layer_cfg) for channels in in_channels
        )
        self.merge_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, conv_cfg=conv_cfg, **layer_cfg)
            for _ in self.in_channels[:-1]
        )

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``; deformable convolutions start as plain ones."""
        super().init_weights()
        zero_offsets(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Merge backbone maps, fine to coarse.

        Args:
            inputs (Sequence[Tensor]): Maps (B, in_channels[i], H_i, W_i).

        Returns:
            tuple[Tensor]: Maps (B, out_channels, H_i, W_i).

        Raises:
            ValueError: The number of maps is not that of ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'neck: got {len(inputs)} maps, expected {len(self.in_channels)} (in_channels)'
            )
        outs = [conv(x) for conv, x in zip(self.lateral_convs, inputs)]
        for level in range(len(outs) - 2, -1, -1):
            size = outs[level].shape[-2:]
            coarser = F.interpolate(outs[level + 1], size=size, mode='nearest')
            outs[level] = self.merge_convs[level](outs[level] + coarser)
        return tuple(outs)
