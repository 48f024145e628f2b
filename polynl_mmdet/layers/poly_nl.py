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
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops import poly_nl


@MODELS.register_module()
class PolyNL(BaseModule):
    """``Z = alpha X + beta Norm((ContextNorm(Phi(X W1 (.) X W2)) (.) X) W3)``.

    Phi is the mean over all positions, (.) the element-wise product. The cost is linear in the
    number of positions. Without norms it is the formula as published; with
    ``context_norm=dict(type='LN')`` it is the form that this project's configs use. Phi's C numbers
    are means over the image, much alike from image to image; the norm makes what differs large.

    At initialisation alpha = beta = 1 and W3 = 0: the layer is the identity, and inserting it
    leaves a pretrained network's outputs as they were. The weights are plain parameters, so that an
    ``init_cfg`` of the surrounding backbone, which re-initialises every convolution and norm inside
    it, leaves them alone.

    Args:
        in_channels (int): Channels C of the input.
        norm_cfg (dict, optional): Norm layer on the polynomial branch (after W3). Note that
            detectors usually train with ``norm_eval=True``, where a BatchNorm keeps its initial
            statistics. In eval mode it is folded into W3. Defaults to None: no norm.
        bias (bool): Whether W1, W2 and W3 have biases. Defaults to False.
        context_norm (dict, optional): Norm over Phi's C numbers, which see no positions: it costs
            nothing. 'LN' has no statistics, and works with any batch size and ``norm_eval``. A
            BatchNorm compares the samples of a batch, needs two or more of them to train, and in
            eval mode, so under ``norm_eval=True`` too, only shifts and scales by what it has seen.
            Defaults to None: the published formula.
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
        context_norm: dict | None = None,
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
        self.context_norm = None
        if context_norm is not None:
            self.context_norm = build_norm_layer(context_norm, in_channels)[1]
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
        """Make the layer the identity: alpha = beta = 1, W3 and biases 0, W1, W2 Xavier-uniform.

        With W3 = 0 a whole matrix has a gradient at once; with beta = 0 only beta has. A norm after
        W3 is the exception: of a branch that is all zeros a BatchNorm multiplies the gradient by
        ``1 / sqrt(eps)``. There W3 is Xavier-uniform and beta 0.
        """
        for index in (1, 2, 3):
            nn.init.xavier_uniform_(getattr(self, f'w{index}'))
            bias = getattr(self, f'b{index}')
            if bias is not None:
                nn.init.zeros_(bias)
        nn.init.ones_(self.alpha)
        nn.init.ones_(self.beta)
        nn.init.zeros_(self.w3 if self.norm is None else self.beta)

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
        w3, b3, alpha, beta = self.w3, self.b3, self.alpha, self.beta
        separate = self.norm is not None and not _is_fixed_batch_norm(self.norm)
        if separate:
            alpha, beta = torch.zeros_like(alpha), torch.ones_like(beta)
        elif self.norm is not None:
            w3, b3 = _fold(self.norm, w3, b3)
        z = poly_nl(
            x,
            *(self.w1, self.w2, w3, alpha, beta, self.b1, self.b2, b3),
            context_norm=None if self.context_norm is None else self._normalize_context,
        )
        if separate:
            z = self.alpha.to(x.dtype) * x + self.beta.to(x.dtype) * self.norm(z)
        return z

    def _normalize_context(self, context: Tensor) -> Tensor:
        """Apply the norm to (B, C), in the context's dtype whatever that of the norm's weights."""
        norm = self.context_norm
        other = {
            name: parameter.to(context.dtype)
            for name, parameter in norm.named_parameters()
            if parameter.dtype != context.dtype
        }
        # BatchNorm2d, which 'BN' is, insists on spatial axes.
        given = context[:, :, None, None] if isinstance(norm, nn.BatchNorm2d) else context
        normalized = functional_call(norm, other, (given,)) if other else norm(given)
        return normalized.reshape(context.shape)

    def extra_repr(self) -> str:
        """str: The constructor's arguments for ``print(model)``."""
        return f'in_channels={self.in_channels}, bias={self.b1 is not None}'


def _is_fixed_batch_norm(norm: nn.Module) -> bool:
    """Return whether ``norm`` is affine with constants of its own: a BatchNorm in eval mode."""
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None


def _fold(norm: _BatchNorm, w3: Tensor, b3: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return W3 and b3 that give the normalised branch; differentiable in all of them."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    if b3 is not None:
        shift = shift + scale * b3
    return scale[:, None] * w3, shift
