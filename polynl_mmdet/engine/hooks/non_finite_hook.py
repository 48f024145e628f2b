"""Stops training at the first loss or gradient that is not finite, before it reaches a weight."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from polynl_mmdet.engine.hooks.runner_parts import bare_model, data_samples, optim_wrappers
from polynl_mmdet.errors import InputError

SHOWN = 5


@HOOKS.register_module()
class NonFiniteStopHook(Hook):
    """Stop training at a loss or gradient that is not finite (NaN or infinite).

    Every backward pass is followed by one look at the loss and the largest absolute gradient: one
    pass over the gradients, and one wait for the device (mmengine itself waits once for each loss
    that it logs), and one number to agree on where there are several processes. If either is not
    finite, the optimizer makes no step, and each process raises an
    :class:`~polynl_mmdet.errors.InputError` that names the iteration, the losses and parameters at
    fault and the images of its batch. ``--resume`` repeats the iteration, exactly so with
    :class:`~polynl_mmdet.engine.hooks.resume_state_hook.ResumeStateHook`.

    With mixed precision (a loss scaler) gradients that overflow are normal: the scaler makes no
    step and halves its scale. Training stops where it has made none ``max_skipped`` times in
    succession.

    Args:
        max_skipped (int): See above. Defaults to 25: a dynamic scale starts at 2^16, so that it is
            far below 1 by then.
    """

    def __init__(self, max_skipped: int = 25) -> None:
        if max_skipped < 1:
            raise InputError(
                'NonFiniteStopHook.max_skipped', str(max_skipped), 'accepted: 1 or more'
            )
        self.max_skipped = max_skipped
        self._skipped = 0
        self._batch: Any = None
        self._losses: dict = {}
        self._undo: list[Callable] = []

    def before_train(self, runner: Runner) -> None:
        """Listen to the model's losses, and follow each optimizer's backward pass."""
        if self._undo:  # An error ended a training before, and left its gradients.
            self.after_train(runner)
            runner.optim_wrapper.zero_grad()

        # A function, not a method: a copy of the model must not copy this hook and the runner.
        def keep_losses(model: torch.nn.Module, inputs: tuple, outputs: Any) -> None:
            self._losses = outputs if isinstance(outputs, dict) else {}

        self._undo.append(bare_model(runner).register_forward_hook(keep_losses).remove)
        for wrapper in optim_wrappers(runner):
            # Not a hook of torch's optimizer: gradients are clipped before its step, which makes
            # NaN of all of them where one is.
            wrapper.backward = partial(self._backward, runner, wrapper, wrapper.backward)
            self._undo.append(partial(delattr, wrapper, 'backward'))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch, to name its images."""
        self._batch = data_batch

    def after_train(self, runner: Runner) -> None:
        """Undo what :meth:`before_train` did."""
        while self._undo:
            self._undo.pop()()
        self._batch, self._losses, self._skipped = None, {}, 0

    def _backward(
        self,
        runner: Runner,
        wrapper: OptimWrapper,
        backward: Callable,
        loss: torch.Tensor,
        **kwargs: Any,
    ) -> None:
        backward(loss, **kwargs)
        finite = _all_finite(loss.detach(), wrapper.optimizer)
        if hasattr(wrapper, 'loss_scaler'):
            if wrapper.should_update():
                self._skipped = 0 if finite else self._skipped + 1
            finite = self._skipped < self.max_skipped
        if not finite:
            raise InputError(
                f'iteration {runner.iter + 1} (epoch {runner.epoch + 1})',
                self._found(bare_model(runner), loss),
                'no step was made with it; --resume repeats it from the last checkpoint',
            )
        self._losses = {}  # The graph goes with them.

    def _found(self, model: torch.nn.Module, loss: torch.Tensor) -> str:
        losses = model.parse_losses(self._losses)[1] if self._losses else dict(loss=loss)
        bad = [f'{k} = {v.item()}' for k, v in losses.items() if not v.isfinite()]
        parts = [f'losses that are not finite: {", ".join(bad)}'] if bad else []
        names = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        if names:
            more = ', ...' if len(names) > SHOWN else ''
            parts.append(
                f'gradients of {len(names)} parameters that are not finite: '
                f'{", ".join(names[:SHOWN])}{more}'
            )
        if not parts and get_world_size() > 1:
            parts = ['a loss or gradient of another process is not finite']
        if self._skipped:
            parts.append(f'no step in {self._skipped} iterations of mixed precision')
        images = [str(s.get('img_path') or s.get('img_id')) for s in data_samples(self._batch)]
        return '; '.join([*parts, f'images: {", ".join(images) or "without names"}'])


def _all_finite(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the loss and all gradients are finite, in every process."""
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group['params']
        if parameter.grad is not None and parameter.grad.numel()
    ]
    # A 2-norm overflows where scaled gradients are large, but finite.
    largest = torch.nn.utils.get_total_norm(gradients, math.inf).to(loss.device)
    finite = (loss.isfinite() & largest.isfinite()).float()
    all_reduce(finite, 'min')
    return bool(finite)
