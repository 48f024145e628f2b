"""The two bilinear maps of Poly-NL over (B, C, N); each is the other's derivative.

``apply_matrix(M, x) = M x`` and ``moment(g, x) = g x^T``. Both keep their arguments alone for the
backward pass, so that the layer keeps its input and C x C matrices. All take and return
(B, C, *spatial), contiguous or channels-last.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from .compat import BMM_OUT_DTYPE, is_compiling, is_exporting
from .cpu import cpu_moment, cpu_product, uses_onednn


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for the 16-bit dtypes, the dtype itself for the others."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def dense(x: Tensor) -> Tensor:
    """Return ``x``, copied unless it is contiguous or channels-last."""
    as_is = is_compiling() or is_exporting() or x.is_contiguous()
    return x if as_is or x.movedim(1, -1).is_contiguous() else x.contiguous()


def apply_matrix(matrix: Tensor, x: Tensor, alpha: Tensor | None = None, widen=False) -> Tensor:
    """Return ``(matrix + alpha I) x``: (B, C, C) in the wide dtype, (B, C, *spatial) -> like ``x``.

    With ``widen`` the result is in the wide dtype.
    """
    apply = _apply if is_exporting() else _Apply.apply
    return apply(matrix, x, alpha, widen)


def moment(g: Tensor, x: Tensor) -> Tensor:
    """Return ``sum_n g_n x_n^T``: (B, C, *spatial) twice -> (B, C, C) in the wide dtype."""
    return _moment(g, x) if is_exporting() else _Moment.apply(g, x)


def second_moment(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sum_n x_n x_n^T``, and ``x`` for further use.

    The gradient of the ``x`` that is returned gets this function's own added in place: one N x C
    gradient is made, not two and their sum.
    """
    return (_moment(None, x), x) if is_exporting() else _SecondMoment.apply(x)


class _Apply(Function):
    @staticmethod
    def forward(ctx, matrix, x, alpha, widen):
        ctx.save_for_backward(matrix, x, alpha)
        # Not a view: autograd copies the gradient of a view that is changed in place, as by a
        # bottleneck's `out += identity`.
        return _apply(matrix, x, alpha, widen).detach()

    @staticmethod
    def backward(ctx, grad):
        matrix, x, alpha = ctx.saved_tensors
        needs, dtype = ctx.needs_input_grad, x.dtype
        # The gradient of a projection, divided by N, may be too small for float16.
        wide = grad.dtype if dtype == torch.float16 else dtype
        grad, x = dense(grad.to(wide)), x.to(wide)
        cross = moment(grad, x) if needs[0] or needs[2] else None
        d_alpha = cross.diagonal(dim1=1, dim2=2).sum().reshape(alpha.shape) if needs[2] else None
        dx = apply_matrix(matrix.transpose(1, 2), grad, alpha).to(dtype) if needs[1] else None
        return cross if needs[0] else None, dx, d_alpha, None


class _Moment(Function):
    @staticmethod
    def forward(ctx, g, x):
        ctx.save_for_backward(g, x)
        return _moment(g, x)

    @staticmethod
    def backward(ctx, grad):
        g, x = ctx.saved_tensors
        dg = apply_matrix(grad, x) if ctx.needs_input_grad[0] else None
        dx = apply_matrix(grad.transpose(1, 2), g) if ctx.needs_input_grad[1] else None
        return dg, dx


class _SecondMoment(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        if not ctx.needs_input_grad[0]:
            ctx.mark_non_differentiable(x)
        return _moment(None, x), x

    @staticmethod
    def backward(ctx, grad, dx):
        (x,) = ctx.saved_tensors
        matrix = grad + grad.transpose(1, 2)
        if torch.is_grad_enabled() or _computes_wide(x):
            return dx + apply_matrix(matrix, x)
        target, x, matrix = dx.flatten(2), x.flatten(2), matrix.to(x.dtype)  # dx is dense
        if uses_onednn(x):
            cpu_product(matrix, x, add_to=target)
        elif x.stride(1) == 1:
            target.transpose(1, 2).baddbmm_(x.transpose(1, 2), matrix)  # which is symmetric
        else:
            target.baddbmm_(matrix, x)
        return dx


def _rounds_sums(x: Tensor) -> bool:
    """Return whether products of ``x`` round their float32 sums to 16 bits."""
    return x.dtype != wide_dtype(x.dtype) and not (BMM_OUT_DTYPE and x.is_cuda)


def _computes_wide(x: Tensor) -> bool:
    """Return whether ``M x`` is computed in float32: float16 is 30 x slower on a CPU."""
    return x.dtype == torch.float16 and not x.is_cuda


def _apply(matrix: Tensor, x: Tensor, alpha: Tensor | None, widen: bool) -> Tensor:
    columns, dtype = x.flatten(2), wide_dtype(x.dtype) if widen else x.dtype
    if matrix.dtype == x.dtype or _computes_wide(x) or (widen and _rounds_sums(x)):
        if alpha is not None:
            eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=x.device)
            matrix = matrix + alpha * eye
        z = _product(matrix, columns.to(matrix.dtype), matrix.dtype).to(dtype)
    else:
        # alpha is not folded into a 16-bit matrix, which would round it once more.
        z = _product(matrix.to(x.dtype), columns, dtype)
        if alpha is not None:
            z.addcmul_(columns, alpha.to(x.dtype))
    return z.reshape(x.shape)


def _product(matrix: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``matrix x`` of (B, C, N), in the memory format of ``x``."""
    if uses_onednn(x):
        return cpu_product(matrix, x)
    last = x.stride(1) == 1 and not is_exporting()
    eager = not (is_compiling() or is_exporting())
    if eager and len(x) == 1 and x.dtype == dtype:  # faster without the batch
        if last:
            return torch.mm(x[0].t(), matrix[0].t()).t()[None]
        return torch.mm(matrix[0], x[0])[None]
    if last:
        return _bmm(x.transpose(1, 2), matrix.transpose(1, 2), dtype).transpose(1, 2)
    return _bmm(matrix, x, dtype)


def _moment(g: Tensor | None, x: Tensor) -> Tensor:
    dtype = wide_dtype(x.dtype)
    if _rounds_sums(x):
        g, x = None if g is None else g.to(dtype), x.to(dtype)
    columns = x.flatten(2)
    g = columns if g is None else g.flatten(2)  # None is x: torch 2.1 compiles no `g is x`
    if x.device.type == 'cpu' and not (is_compiling() or is_exporting()):
        return cpu_moment(g, columns)
    return _bmm(g, columns.transpose(1, 2), dtype)


def _bmm(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.bmm(a, b) if dtype == a.dtype else torch.bmm(a, b, out_dtype=dtype)
