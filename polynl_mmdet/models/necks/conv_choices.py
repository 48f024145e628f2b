"""What the necks of RetinaFace share about their convolutions."""

from __future__ import annotations

from mmengine.model import constant_init
from torch import nn

DEFAULT_INIT = dict(type='Xavier', layer='Conv2d', distribution='uniform')


def light_act_cfg(channels: int) -> dict:
    """Activation of the lighter layout: leaky ReLU, slope 0.1 up to 64 channels, else ReLU.

    Args:
        channels (int): Output channels of the whole module (not of one branch).

    Returns:
        dict: ``act_cfg`` for mmcv's ConvModule.
    """
    if channels <= 64:
        return dict(type='LeakyReLU', negative_slope=0.1)
    return dict(type='ReLU')


def zero_offsets(module: nn.Module) -> None:
    """Let every deformable convolution in a module begin as a plain one.

    Its offsets come from an ordinary Conv2d, which an ``init_cfg`` for Conv2d layers reaches too.

    Args:
        module (nn.Module): Module whose deformable convolutions (mmcv's) are reset.
    """
    for child in module.modules():
        if hasattr(child, 'conv_offset'):
            constant_init(child.conv_offset, 0)
