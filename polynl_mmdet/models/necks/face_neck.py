"""What the necks of RetinaFace share."""

from __future__ import annotations

from mmengine.model import BaseModule, constant_init


class FaceNeck(BaseModule):
    """Base of modules of convolutions with norm and activation.

    Args:
        out_channels (int): Channels of the output.
        conv_cfg (dict, optional): Convolution, e.g. ``dict(type='DCNv2', deform_groups=1)``; it
            starts as a plain one. Defaults to None (Conv2d).
        norm_cfg (dict, optional): Norm layer. Defaults to BN.
        act_cfg (dict, optional): Activation. Defaults to leaky ReLU of slope 0.1 up to 64 output
            channels, as in the lighter RetinaFace, else ReLU.
        init_cfg (dict | list[dict], optional): Defaults to Xavier (uniform) for convolutions.
    """

    def __init__(
        self,
        out_channels: int,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        light = dict(type='LeakyReLU', negative_slope=0.1)
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg or dict(type='BN')
        self.act_cfg = act_cfg or (light if out_channels <= 64 else dict(type='ReLU'))

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``, and the offsets of deformable convolutions, if any, by 0."""
        super().init_weights()
        for child in self.modules():
            if hasattr(child, 'conv_offset'):
                constant_init(child.conv_offset, 0)
