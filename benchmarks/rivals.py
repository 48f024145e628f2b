"""What Poly-NL is compared with: floors, its own forms, and other plugin layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polynl_mmdet.ops import poly_nl, poly_nl_reference

METHODS = ('covariance', 'literal', 'auto')
FORWARD_FLOOR, STEP_FLOOR = 'floor (2 products)', 'floor (5 products)'


class Rival(NamedTuple):
    """One row of a benchmark.

    Attributes:
        forward (Callable): The forward pass, with gradients as the caller has set them.
        params (list[Tensor]): What it learns.
        quadratic (int): N x N matrices that a forward pass makes, for the memory limit; 0: none,
            -1: time but not memory grows as N^2.
    """

    forward: Callable[[Tensor], Tensor]
    params: list[Tensor]
    quadratic: int = 0


class AttentionNonLocal(nn.Module):
    """A non-local block whose softmax never stores N x N weights.

    Wang et al., "Non-local Neural Networks", CVPR 2018, https://arxiv.org/abs/1711.07971, through
    ``torch.nn.functional.scaled_dot_product_attention``; half the channels inside, as usual.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.project = nn.Conv2d(channels, 3 * inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        # The kernels that store no weights want the channels of a position side by side.
        rows = self.project(x).flatten(2).transpose(1, 2).contiguous()
        theta, phi, g = rows[:, None].chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(theta, phi, g)
        return x + self.out(y[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))


def make_parameters(channels: int, like: Tensor) -> list[Tensor]:
    """w1, w2, w3, alpha, beta as a trained layer might have them."""

    def draw() -> Tensor:
        w = torch.randn(channels, channels, device=like.device) / channels**0.5
        return w.to(like.dtype).requires_grad_()

    alpha = torch.ones(1, device=like.device, dtype=like.dtype, requires_grad=True)
    beta = torch.full_like(alpha, 0.1).requires_grad_()
    return [draw(), draw(), draw(), alpha, beta]


def poly_nl_rivals(channels: int, like: Tensor) -> Iterator[tuple[str, Rival]]:
    """The operator's forms, and the formula differentiated by autograd as it stands."""
    params = make_parameters(channels, like)
    for method in METHODS:
        yield method, Rival(lambda x, m=method: poly_nl(x, *params, method=m), params)
    yield 'formula, autograd', Rival(lambda x: poly_nl_reference(x, *params), params)


def other_rivals(channels: int, like: Tensor) -> Iterator[tuple[str, Rival]]:
    """Attention without mm*, then mmcv's layers where mmcv is installed."""

    def rival(module: nn.Module, quadratic: int = 0) -> Rival:
        module = module.to(like)
        return Rival(module, list(module.parameters()), quadratic)

    yield 'non-local, SDPA', rival(AttentionNonLocal(channels), -1)
    try:
        from mmcv.cnn import ContextBlock, NonLocal2d
    except ImportError:
        return
    # embedded Gaussian: products, softmax; both backward; dot product: products, quotient.
    yield 'NonLocal2d, embedded', rival(NonLocal2d(channels, mode='embedded_gaussian'), 4)
    yield 'NonLocal2d, dot', rival(NonLocal2d(channels, mode='dot_product'), 4)
    yield 'ContextBlock', rival(ContextBlock(channels, ratio=1 / 16))


def missing_rivals() -> list[str]:
    """Names of rows that drop out because mmcv is not installed."""
    try:
        import mmcv.cnn  # noqa: F401
    except ImportError:
        return ['NonLocal2d, embedded', 'NonLocal2d, dot', 'ContextBlock']
    return []


def floors(x: Tensor, grad: Tensor) -> dict[str, Callable[[], None]]:
    """Bare products of the very kinds that the layer needs, and nothing else.

    Two forward (``x x^T``, ``M x``) and three more backward (``g x^T``, ``M^T g``, ``T x``), each
    one call of torch.bmm on (B, C, N).
    """
    columns, g = x.detach().flatten(2), grad.flatten(2)
    batch, channels = columns.shape[:2]
    matrix = torch.randn(batch, channels, channels, device=x.device).to(x.dtype)

    def two() -> None:
        torch.bmm(columns, columns.transpose(1, 2))
        torch.bmm(matrix, columns)

    def five() -> None:
        two()
        torch.bmm(g, columns.transpose(1, 2))
        torch.bmm(matrix.transpose(1, 2), g)
        torch.bmm(matrix, columns)

    return {FORWARD_FLOOR: two, STEP_FLOOR: five}
