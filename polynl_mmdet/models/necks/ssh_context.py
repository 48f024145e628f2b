"""Context modules: larger receptive fields on the same map, concatenated.

SSH: Single Stage Headless Face Detector (Najibi et al., ICCV 2017, Sec. 3.3,
https://arxiv.org/abs/1708.03979), as RetinaFace uses it: one independent module per level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .face_neck import FaceNeck


@MODELS.register_module()
class SSHContextModule(FaceNeck):
    """One level's context module: branches that see 3x3, 5x5 and 7x7 pixels.

    The 5x5 and 7x7 branches are stacks of 3x3 convolutions and share their first one. A norm
    follows each convolution, an activation only those inside a branch, a ReLU the concatenation.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 4: half of them from the 3x3
            branch, a quarter from each of the others.
        **kwargs: As for :class:`FaceNeck`. The paper puts deformable convolutions here
            (``conv_cfg``); ``act_cfg`` is the activation inside the branches. The weights keep
            ConvModule's own initialization (Kaiming).

    Raises:
        ValueError: ``out_channels`` is not a multiple of 4.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs) -> None:
        super().__init__(out_channels, **kwargs)
        if out_channels <= 0 or out_channels % 4:
            raise ValueError(f'neck.out_channels: got {out_channels}, expected a multiple of 4')
        half, quarter, act_cfg = out_channels // 2, out_channels // 4, self.act_cfg
        self.conv3x3 = self._conv(in_channels, half, None)
        self.conv5x5_1 = self._conv(in_channels, quarter, act_cfg)
        self.conv5x5_2 = self._conv(quarter, quarter, None)
        self.conv7x7_2 = self._conv(quarter, quarter, act_cfg)
        self.conv7x7_3 = self._conv(quarter, quarter, None)

    def _conv(self, channels: int, outs: int, act_cfg: dict | None) -> ConvModule:
        cfg = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=act_cfg)
        return ConvModule(channels, outs, 3, padding=1, **cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        shared = self.conv5x5_1(x)
        branches = (
            self.conv3x3(x),
            self.conv5x5_2(shared),
            self.conv7x7_3(self.conv7x7_2(shared)),
        )
        return F.relu(torch.cat(branches, dim=1))


@MODELS.register_module()
class SSHContext(BaseModule):
    """An independent context module for each level of a pyramid.

    It follows the pyramid in a detector's neck: ``neck=[dict(type='FPN', ...),
    dict(type='SSHContext', ...)]``.

    Args:
        in_channels, out_channels (int): Channels of each input and output.
        num_levels (int): Number of levels.
        init_cfg (dict | list[dict], optional): Defaults to None: the modules' own.
        **kwargs: As for :class:`SSHContextModule`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_levels: int,
        init_cfg: dict | list | None = None,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg)
        self.levels = nn.ModuleList(
            SSHContextModule(in_channels, out_channels, **kwargs) for _ in range(num_levels)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map (B, in_channels, H_i, W_i) to (B, out_channels, H_i, W_i), level by level."""
        if len(inputs) != len(self.levels):
            raise ValueError(
                f'neck: got {len(inputs)} maps, expected {len(self.levels)} (num_levels)'
            )
        return tuple(module(x) for module, x in zip(self.levels, inputs))
