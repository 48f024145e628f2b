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

from .conv_choices import DEFAULT_INIT, light_act_cfg, zero_offsets


@MODELS.register_module()
class SSHContextModule(BaseModule):
    """One level's context module: branches that see 3x3, 5x5 and 7x7 pixels.

    The 5x5 and 7x7 branches are stacks of 3x3 convolutions and share their first one. A norm
    follows each convolution, an activation only those inside a branch, a ReLU the concatenation.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 4: half of them from the 3x3
            branch, a quarter from each of the others.
        conv_cfg (dict, optional): Convolution layer, e.g. ``dict(type='DCNv2',
            deform_groups=1)``: the paper puts deformable convolutions here. Defaults to None
            (Conv2d).
        norm_cfg (dict): Norm layer. Defaults to BN.
        act_cfg (dict, optional): Activation inside the branches. None: leaky ReLU of slope 0.1
            up to 64 output channels, else ReLU. Defaults to None.
        init_cfg (dict | list[dict], optional): Defaults to Xavier (uniform) for convolutions.

    Raises:
        ValueError: ``out_channels`` is not a multiple of 4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or DEFAULT_INIT)
        if out_channels <= 0 or out_channels % 4:
            raise ValueError(f'neck.out_channels: got {out_channels}, expected a multiple of 4')
        quarter = out_channels // 4
        inner = act_cfg or light_act_cfg(out_channels)

        def conv(channels: int, outs: int, act: dict | None) -> ConvModule:
            return ConvModule(
                channels,
                outs,
                3,
                padding=1,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg or dict(type='BN'),
                act_cfg=act,
            )

        self.conv3x3 = conv(in_channels, out_channels - 2 * quarter, None)
        self.conv5x5_1 = conv(in_channels, quarter, inner)
        self.conv5x5_2 = conv(quarter, quarter, None)
        self.conv7x7_2 = conv(quarter, quarter, inner)
        self.conv7x7_3 = conv(quarter, quarter, None)

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``; deformable convolutions start as plain ones."""
        super().init_weights()
        zero_offsets(self)

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
        in_channels (int): Channels of each input.
        out_channels (int): Channels of each output.
        num_levels (int): Number of levels.
        conv_cfg, norm_cfg, act_cfg: As for :class:`SSHContextModule`.
        init_cfg (dict | list[dict], optional): Defaults to None: the modules' own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_levels: int,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.levels = nn.ModuleList(
            SSHContextModule(in_channels, out_channels, conv_cfg, norm_cfg, act_cfg)
            for _ in range(num_levels)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map (B, in_channels, H_i, W_i) to (B, out_channels, H_i, W_i), level by level.

        Raises:
            ValueError: The number of maps is not ``num_levels``.
        """
        if len(inputs) != len(self.levels):
            raise ValueError(
                f'neck: got {len(inputs)} maps, expected {len(self.levels)} (num_levels)'
            )
        return tuple(module(x) for module, x in zip(self.levels, inputs))
