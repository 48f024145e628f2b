"""SyncBN without a GPU, so that a training on several CPU processes computes what it should.

torch's ``SyncBatchNorm`` refuses CPU tensors when there is more than one process, and
``DistributedDataParallel`` refuses any module of that class on a CPU.
"""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, distributed
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """The sum of all processes' tensors, of which each process's loss may use the result."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm of CPU tensors over all processes, as ``nn.SyncBatchNorm`` is on GPUs.

    In training, mean and variance are those of all processes' positions together. With one process
    and in eval mode it is ``nn.BatchNorm2d``, for any number of axes.

    Args are ``nn.BatchNorm2d``'s.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f'CPUSyncBatchNorm: {x.ndim} axes; accepted: 2 or more, (N, C, ...)')

    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x (Tensor): (N, C, ...); all sizes but C may differ between processes.

        Returns:
            Tensor: Like ``x``.

        Raises:
            ValueError: ``x`` has no axis of channels.
        """
        batch_statistics = self.training or self.running_mean is None
        together = distributed.is_initialized() and distributed.get_world_size() > 1
        if not (batch_statistics and together):
            return super().forward(x)
        self._check_input_dim(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.new_tensor([x.numel() / x.shape[1]])
        distributed.all_reduce(count)
        mean = _SumOverProcesses.apply(x.sum(axes)) / count
        # Not from the sum of squares, which cancels.
        centred = x - mean.view(shape)
        squares = _SumOverProcesses.apply(centred.square().sum(axes))
        if self.training and self.track_running_stats:
            self._follow(mean.detach(), squares.detach() / (count - 1))
        y = centred * (squares / count + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def let_sync_norms_run_on_cpu() -> None:
    """Make ``norm_cfg=dict(type='SyncBN')`` build :class:`CPUSyncBatchNorm` in this process."""
    MODELS.register_module('SyncBN', force=True, module=CPUSyncBatchNorm)
