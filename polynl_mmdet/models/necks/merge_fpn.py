"""Feature pyramid of the lighter RetinaFace: the merged map is what is upsampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from torch import Tensor, nn

from .face_neck import FaceNeck


@MODELS.register_module()
class MergeFPN(FaceNeck):
    """Top-down pyramid that applies a 3x3 convolution to each sum before it is upsampled.

    mmdet's FPN (Lin et al., CVPR 2017) upsamples the sums and smooths the outputs. Here the
    smoothed map is upsampled (nearest, to the finer map's exact size) and added to the next
    lateral. The coarsest output is its lateral.

    Args:
        in_channels (Sequence[int]): Channels of the backbone's maps, fine to coarse.
        out_channels (int): Channels of every output.
        **kwargs: As for :class:`FaceNeck`; ``conv_cfg`` is that of the 3x3 merges.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, **kwargs) -> None:
        super().__init__(out_channels, **kwargs)
        self.in_channels = list(in_channels)
        layer_cfg = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, **layer_cfg) for channels in in_channels
        )
        layer_cfg['conv_cfg'] = self.conv_cfg
        self.merge_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, **layer_cfg)
            for _ in self.in_channels[:-1]
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Merge maps (B, in_channels[i], H_i, W_i), fine to coarse, to as many."""
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
