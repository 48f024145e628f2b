"""Activation and initialization of the necks of RetinaFace."""

from __future__ import annotations

from mmengine.model import constant_init
from torch import nn

DEFAULT_INIT = dict(type='Xavier', layer='Conv2d', distribution='uniform')


def light_act_cfg(channels: int) -> dict:
    """Return the activation of the lighter RetinaFace: leaky ReLU up to 64 channels, else ReLU.

    Args:
        channels (int): Output channels of the whole module (not of one branch).

    Returns:
        dict: ``act_cfg`` for mmcv's ConvModule.
    """
    if channels <= 64:
        return dict(type='LeakyReLU', negative_slope=0.1)
    return dict(type='ReLU')


def zero_offsets(module: nn.Module) -> None:
    """Make deformable convolutions start as plain ones.

    Their offsets come from a Conv2d, which an ``init_cfg`` for Conv2d layers initializes too.

    Args:
        module (nn.Module): Module with deformable convolutions of mmcv.
    """
    for child in module.modules():
        if hasattr(child, 'conv_offset'):
            constant_init(child.conv_offset, 0)
