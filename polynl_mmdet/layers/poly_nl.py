"""Poly-NL as a plugin layer.

Babiloni et al., "Poly-NL: Linear Complexity Non-Local Layers With 3rd Order Polynomials",
ICCV 2021, https://arxiv.org/abs/2107.02859, Sec. 3.
"""

from __future__ import annotations

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops import poly_nl


@MODELS.register_module()
class PolyNL(BaseModule):
    """``Z = alpha X + beta Norm((Phi(X W1 (.) X W2) (.) X) W3)``.

    Phi is the mean over all positions, (.) the element-wise product. The cost is linear in the
    number of positions. At initialisation alpha = 1 and beta = 0: the layer is the identity, and
    inserting it leaves a pretrained network's outputs as they were. The weights are plain
    parameters, so that an ``init_cfg`` of the surrounding backbone, which re-initialises every
    convolution and norm inside it, leaves them alone.

    Args:
        in_channels (int): Channels C of the input.
        norm_cfg (dict, optional): Norm layer on the polynomial branch (after W3). Note that
            detectors usually train with ``norm_eval=True``, where a BatchNorm keeps its initial
            statistics. In eval mode it is folded into W3. Defaults to None: no norm.
        bias (bool): Whether W1, W2 and W3 have biases. Defaults to False.
        init_cfg (dict or list[dict], optional): As in mmengine's BaseModule. Defaults to None.

    Raises:
        ValueError: ``in_channels`` is not a positive integer, or an input has other channels or
            no spatial axis.
        TypeError: An input is not floating point.
    """

    _abbr_ = 'poly_nl'

    def __init__(
        self,
        in_channels: int,
        norm_cfg: dict | None = None,
        bias: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if isinstance(in_channels, bool) or not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'PolyNL: in_channels={in_channels!r}; accepted: a positive integer')
        self.in_channels = in_channels
        for index in (1, 2, 3):
            self.register_parameter(
                f'w{index}', nn.Parameter(torch.empty(in_channels, in_channels))
            )
            self.register_parameter(
                f'b{index}', nn.Parameter(torch.empty(in_channels)) if bias else None
            )
        self.alpha = nn.Parameter(torch.empty(1))
        self.beta = nn.Parameter(torch.empty(1))
        self.norm_name = None
        if norm_cfg is not None:
            self.norm_name, norm = build_norm_layer(norm_cfg, in_channels)
            self.add_module(self.norm_name, norm)
        self.reset_parameters()

    @property
    def norm(self) -> nn.Module | None:
        """nn.Module or None: the norm layer on the polynomial branch."""
        return None if self.norm_name is None else getattr(self, self.norm_name)

    def reset_parameters(self) -> None:
        """Identity (alpha 1, beta 0), W1 to W3 Xavier-uniform, biases 0."""
        for index in (1, 2, 3):
            nn.init.xavier_uniform_(getattr(self, f'w{index}'))
            bias = getattr(self, f'b{index}')
            if bias is not None:
                nn.init.zeros_(bias)
        nn.init.ones_(self.alpha)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """Forward.

        Args:
            x (Tensor): (B, C, *spatial), one or more spatial axes, floating point.

        Returns:
            Tensor: Shape and dtype of ``x``.
        """
        if x.dim() > 1 and x.shape[1] != self.in_channels:
            raise ValueError(
                f'PolyNL: the input has shape {tuple(x.shape)}, so {x.shape[1]} channels; '
                f'accepted: in_channels={self.in_channels}'
            )
        weights = (self.w1, self.w2, self.w3)
        biases = (self.b1, self.b2, self.b3)
        if self.norm is None:
            return poly_nl(x, *weights, self.alpha, self.beta, *biases)
        if _is_fixed_batch_norm(self.norm):
            w3, b3 = _fold(self.norm, self.w3, self.b3)
            return poly_nl(x, self.w1, self.w2, w3, self.alpha, self.beta, self.b1, self.b2, b3)
        zero, one = torch.zeros_like(self.alpha), torch.ones_like(self.beta)
        branch = self.norm(poly_nl(x, *weights, zero, one, *biases))
        return self.alpha.to(x.dtype) * x + self.beta.to(x.dtype) * branch

    def extra_repr(self) -> str:
        """str: The constructor's arguments for ``print(model)``."""
        return f'in_channels={self.in_channels}, bias={self.b1 is not None}'


def _is_fixed_batch_norm(norm: nn.Module) -> bool:
    """Whether ``norm`` is affine with constants of its own: a BatchNorm in eval mode."""
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None


def _fold(norm: _BatchNorm, w3: Tensor, b3: Tensor | None) -> tuple[Tensor, Tensor]:
    """W3 and b3 such that the branch comes out normalised; differentiable in all of them."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    if b3 is not None:
        shift = shift + scale * b3
    return scale[:, None] * w3, shift
