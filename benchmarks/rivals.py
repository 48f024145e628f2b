"""What Poly-NL is compared with: floors, its own forms, and other plugin layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from polynl_mmdet.ops import poly_nl, poly_nl_reference

METHODS = ('moments', 'projections', 'auto')
LAST = ', channels last'
# Bare products of a forward pass, and of a forward and a backward pass, by kind.
FLOOR_PRODUCTS = {'forward': dict(moment=1, apply=1), 'step': dict(moment=2, apply=3)}


class Rival(NamedTuple):
    """One row of a benchmark.

    Attributes:
        forward (Callable): The forward pass, with gradients as the caller has set them.
        params (list[Tensor]): What it learns.
        quadratic (int): N x N matrices that a forward pass makes, for the memory limit; 0: none,
            -1: time but not memory grows as N^2.
        channels_last (bool): Whether it is given maps in that memory format.
    """

    forward: Callable[[Tensor], Tensor]
    params: list[Tensor]
    quadratic: int = 0
    channels_last: bool = False


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
    """Return w1, w2, w3, alpha, beta as a trained layer might have them."""

    def draw() -> Tensor:
        w = torch.randn(channels, channels, device=like.device) / channels**0.5
        return w.to(like.dtype).requires_grad_()

    alpha = torch.ones(1, device=like.device, dtype=like.dtype, requires_grad=True)
    beta = torch.full_like(alpha, 0.1).requires_grad_()
    return [draw(), draw(), draw(), alpha, beta]


def poly_nl_rivals(channels: int, like: Tensor) -> Iterator[tuple[str, Rival]]:
    """Yield the operator's forms, and the formula as it is written without an operator."""
    params = make_parameters(channels, like)
    for method in METHODS:
        yield method, Rival(lambda x, m=method: poly_nl(x, *params, method=m), params)
    norm = nn.LayerNorm(channels, device=like.device)
    with_norm = [*params, *norm.parameters()]
    yield 'auto, LN', Rival(lambda x: poly_nl(x, *params, context_norm=norm), with_norm)
    yield f'auto{LAST}', Rival(lambda x: poly_nl(x, *params), params, channels_last=True)
    yield 'conv2d', Rival(lambda x: poly_nl_by_conv2d(x, *params), params)
    yield (
        f'conv2d{LAST}',
        Rival(lambda x: poly_nl_by_conv2d(x, *params), params, channels_last=True),
    )
    yield 'formula, autograd', Rival(lambda x: poly_nl_reference(x, *params), params)


def poly_nl_by_conv2d(
    x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """Compute Poly-NL as one would write it at first: three 1 x 1 convolutions and autograd.

    Weights are cast to the dtype of ``x``, as autocast does.
    """
    w1, w2, w3, alpha, beta = (t.to(x.dtype) for t in (w1, w2, w3, alpha, beta))
    left, right = (F.conv2d(x, w[:, :, None, None]) for w in (w1, w2))
    context = (left * right).mean((2, 3), keepdim=True)
    return alpha * x + beta * F.conv2d(context * x, w3[:, :, None, None])


def other_rivals(channels: int, like: Tensor) -> Iterator[tuple[str, Rival]]:
    """Yield attention without mm*, then mmcv's layers where mmcv is installed."""

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
    """Return the names of rows that drop out because mmcv is not installed."""
    try:
        import mmcv.cnn  # noqa: F401
    except ImportError:
        return ['NonLocal2d, embedded', 'NonLocal2d, dot', 'ContextBlock']
    return []


def floor_products(x: Tensor, grad: Tensor) -> dict[tuple[str, str], Callable[[], None]]:
    """Return the bare products that the layer needs, by kind and library, and nothing else.

    ``moment`` is ``g x^T``, which runs once forward (with x for g) and once backward; ``apply`` is
    ``M x``, which runs once forward and twice backward. A floor is the sum of the faster library's
    times. torch.bmm is MKL or what else PyTorch was built with, cuBLAS on CUDA. On a CPU oneDNN is
    the other, and not for every dtype: its matrix product, and for ``moment`` what a 1 x 1
    convolution's weight gradient runs on.

    Args:
        x (Tensor): (B, C, H, W), contiguous or channels_last.
        grad (Tensor): The same.
    """
    columns, g = x.detach().flatten(2), grad.flatten(2)
    batch, channels = columns.shape[:2]
    matrix = torch.randn(batch, channels, channels, device=x.device).to(x.dtype)
    last = columns.stride(1) == 1

    def moment() -> None:
        torch.bmm(g, columns.transpose(1, 2))

    def apply() -> None:
        if last:
            torch.bmm(columns.transpose(1, 2), matrix.transpose(1, 2))
        else:
            torch.bmm(matrix, columns)

    found = {('moment', 'bmm'): moment, ('apply', 'bmm'): apply}
    if x.device.type != 'cpu' or not torch.backends.mkldnn.is_available():
        return found

    def onednn(a: Tensor, b: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(a, b, None, 'none', [], '')

    def onednn_moment() -> None:
        for i in range(batch):
            onednn(g[i], columns[i])

    def onednn_apply() -> None:
        for i in range(batch):
            onednn(columns[i].t(), matrix[i]) if last else onednn(matrix[i], columns[i].t())

    def convolution_moment() -> None:
        for i in range(batch):
            conv2d_weight(x[i : i + 1], (channels, channels, 1, 1), grad[i : i + 1])

    try:
        onednn(matrix[0], matrix[0])
    except (AttributeError, RuntimeError):  # another PyTorch, or a dtype this processor lacks
        return found
    found |= {('moment', 'oneDNN'): onednn_moment, ('apply', 'oneDNN'): onednn_apply}
    return found | {('moment', "a convolution's gradient"): convolution_moment}


def floor_time(times: dict[tuple[str, str], float], quantity: str) -> float:
    """Return the seconds of a floor: the faster library's time of each of its products.

    Args:
        times (dict): Seconds by kind and library, as in :func:`floor_products`.
        quantity (str): 'forward' or 'step'.
    """
    return sum(
        count * min(seconds for (kind, _), seconds in times.items() if kind == wanted)
        for wanted, count in FLOOR_PRODUCTS[quantity].items()
    )
