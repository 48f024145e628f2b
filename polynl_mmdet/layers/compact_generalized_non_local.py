"""Compact generalized non-local layer.

Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018,
https://arxiv.org/abs/1810.13125, Sec. 3 (dot-product kernel, grouped channels).
"""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .context_layer import ContextLayer


@MODELS.register_module()
class CompactGeneralizedNonLocal(ContextLayer):
    """``Z = X + GN(Wz [theta_k (phi_k . g_k)]_k)`` with ``theta, phi, g = X Wtheta, X Wphi, X Wg``.

    All channels of all positions are pairs to be compared, not only positions. With the
    dot-product kernel and vec(.) the vector of a group's N C'/G entries,
    ``(vec(theta) vec(phi)^T) vec(g)`` needs no matrix of pairs: it is theta times one number a
    group, ``vec(phi) . vec(g)``. Wz is a 1x1 convolution in the same G groups, followed by a group
    norm, as in the paper. The norm is over exactly the entries that this number scales, so only
    its sign (and, near zero, the norm's epsilon) reaches the output.

    Args:
        in_channels (int): Channels C of the input.
        reduction (int): C' = C / reduction. Defaults to 2.
        groups (int): Groups G. Defaults to 8.
        use_scale (bool): Whether the dot product is divided by sqrt(N C'/G). Defaults to False.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: Arguments that are not positive integers, ``groups`` that does not divide the
            outer and inner channels, or an input that is not (B, in_channels, H, W).
    """

    _abbr_ = 'cgnl'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        groups: int = 8,
        use_scale: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, init_cfg)
        inner = self.inner_channels(reduction)
        self.groups = self.check_positive('groups', groups)
        if inner % groups or in_channels % groups:
            raise ValueError(
                f'CompactGeneralizedNonLocal: groups={groups}; accepted: a divisor of the '
                f'{in_channels} channels and of the {inner} inner channels'
            )
        self.use_scale = use_scale
        self.theta = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.g = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.build_output(inner, dict(type='GN', num_groups=groups), groups=groups)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x (Tensor): (B, C, H, W), floating point.

        Returns:
            Tensor: (B, C, H, W).
        """
        self.check_input(x)
        # (B, G, N C'/G)
        theta, phi, g = (
            conv(x).unflatten(1, (self.groups, -1)).flatten(2)
            for conv in (self.theta, self.phi, self.g)
        )
        # A sum over all positions and channels overflows float16.
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
            product = (phi.to(wide) * g.to(wide)).sum(dim=2, keepdim=True)
            if self.use_scale:
                product = product / phi.shape[2] ** 0.5
            y = (theta.to(wide) * product).unflatten(2, (-1, *x.shape[2:])).flatten(1, 2)
            # The norm is free of scale: keep the convolution's input in float16's range.
            if wide != theta.dtype:
                y = y / y.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1.0)
        return x + self.output(y.to(theta.dtype))
