"""Compact generalized non-local layer.

Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018,
https://arxiv.org/abs/1810.13125, Sec. 3 (dot-product kernel, grouped channels).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .context_layer import ContextLayer, split_heads


class CompactGeneralizedNonLocal(ContextLayer):
    """``Z = X + GN(Wz [theta_k (phi_k . g_k)]_k)`` with ``theta, phi, g = X Wtheta, X Wphi, X Wg``.

    Pairs of all channels of all positions are compared, not of positions alone. With the dot
    product as kernel this needs no matrix of pairs: ``(vec(theta) vec(phi)^T) vec(g)`` is theta
    times one number per group. Wz is a 1 x 1 convolution in the same groups, followed by a group
    norm over exactly the entries that this number scales: only its sign (and, near zero, the norm's
    epsilon) reaches the output.

    Args:
        reduction (int): theta, phi and g have C / reduction channels. Defaults to 2.
        groups (int): Groups, a divisor of both numbers of channels. Defaults to 8.
        use_scale (bool): Whether the dot product is divided by the square root of its length.
            Defaults to False.
    """

    _abbr_ = 'cgnl'

    def __init__(
        self, in_channels: int, reduction: int = 2, groups: int = 8, use_scale: bool = False
    ) -> None:
        super().__init__(in_channels, reduction, num_heads=groups)
        self.use_scale = use_scale
        self.add_projections('theta', 'phi', 'g', bias=False)
        self.conv_z = nn.Conv2d(self.inner_channels, in_channels, 1, groups=groups, bias=False)
        self.conv_out = nn.GroupNorm(groups, in_channels)
        self.reset_parameters()

    def branch(self, x: Tensor) -> Tensor:
        theta, phi, g = (
            split_heads(conv(x), self.num_heads).flatten(2)  # (B, groups, N C' / groups)
            for conv in (self.theta, self.phi, self.g)
        )
        # A sum over all positions and channels overflows float16.
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(theta.dtype, torch.float32)
            product = (phi.to(wide) * g.to(wide)).sum(dim=2, keepdim=True)
            if self.use_scale:
                product = product / phi.shape[2] ** 0.5
            y = (theta.to(wide) * product).unflatten(2, (-1, *x.shape[2:])).flatten(1, 2)
            # The norm removes any scale: keep the convolution's input in float16's range.
            if wide != theta.dtype:
                y = y / y.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1.0)
        return self.conv_out(self.conv_z(y.to(theta.dtype)))
