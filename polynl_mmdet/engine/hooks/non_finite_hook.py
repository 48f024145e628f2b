"""Training stops at the first loss or gradient that is not finite, before it reaches a weight."""

from __future__ import annotations

import math
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from polynl_mmdet.engine.non_finite_record import write_record
from polynl_mmdet.engine.plain_batch import image_names
from polynl_mmdet.engine.resume.random_state import generator_states
from polynl_mmdet.engine.runner_parts import bare_model, optim_wrappers
from polynl_mmdet.errors import InputError

SHOWN = 5


@HOOKS.register_module()
class NonFiniteStopHook(Hook):
    """Stops training at a loss or gradient norm that is not finite.

    Every optimizer step is preceded by one look at the loss and the norm of all gradients (one
    number, and one wait for the GPU). If it is not finite, the step is not made: the weights stay
    those of the last good one. All processes stop, each with an error that names the iteration, the
    losses and gradients at fault and its images, after it wrote what is needed to repeat the
    iteration to ``<work_dir>/non_finite/iter_<n>_rank<r>``; ``python -m
    polynl_mmdet.engine.replay FOLDER`` does so.

    With mixed precision (a loss scaler) gradients that overflow are normal: the scaler makes no
    step and halves its scale. Training stops where it has made no step ``max_skipped`` times in
    succession.

    Args:
        max_skipped (int): See above. Defaults to 25: a dynamic scale starts at 2^16, so that it is
            far below 1 by then.
    """

    # Before what logs, averages and saves.
    priority = 'ABOVE_NORMAL'

    def __init__(self, max_skipped: int = 25) -> None:
        if max_skipped < 1:
            raise InputError(
                'NonFiniteStopHook.max_skipped', str(max_skipped), 'accepted: 1 or more'
            )
        self.max_skipped = max_skipped
        self._skipped = 0
        self._losses: dict[str, torch.Tensor] = {}
        self._before: dict[str, Any] = {}
        self._batch: Any = None

    def before_train(self, runner: Runner) -> None:
        """Stand before each optimizer's step, and listen to the losses.

        Args:
            runner (Runner): The runner.
        """
        for one in optim_wrappers(runner):
            # Not a hook of torch's optimizer: gradients are clipped before that, and the norm of
            # one that is NaN makes all of them NaN.
            one.step = partial(self._step, runner, one, one.step)
        model = bare_model(runner)
        model.parse_losses = partial(self._parse_losses, model.parse_losses)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what the forward pass changes: generators and buffers (norm statistics).

        Args:
            runner (Runner): The runner.
            batch_idx (int): The batch's number in the epoch.
            data_batch (Any): The batch.
        """
        self._batch = data_batch
        buffers = {name: buffer.clone() for name, buffer in bare_model(runner).named_buffers()}
        self._before = dict(generators=generator_states(), buffers=buffers)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the loss of an iteration that only accumulated gradients.

        Args:
            runner (Runner): The runner.
            batch_idx (int): The batch's number in the epoch.
            data_batch (Any): The batch.
            outputs (dict): The losses.
        """
        losses, self._losses = self._losses, {}
        scaled = any(hasattr(one, 'loss_scaler') for one in optim_wrappers(runner))
        # With mixed precision it shows in the gradients, when the step is due.
        if losses and not scaled and not _all_finite(_total(losses)):
            self._losses = losses
            self._stop(runner)

    def _parse_losses(self, parse: Callable, losses: dict) -> tuple:
        total, parts = parse(losses)
        self._losses = {
            name: value.detach() for name, value in parts.items() if torch.is_tensor(value)
        }
        return total, parts

    def _step(self, runner: Runner, wrapper: OptimWrapper, step: Callable, **kwargs: Any) -> None:
        gradients = [
            parameter.grad
            for group in wrapper.optimizer.param_groups
            for parameter in group['params']
            if parameter.grad is not None
        ]
        finite = _all_finite(_norm(gradients), _total(self._losses))
        if hasattr(wrapper, 'loss_scaler'):
            self._skipped = 0 if finite else self._skipped + 1
            finite = self._skipped < self.max_skipped
        if not finite:
            self._stop(runner)
        # Looked at: nothing is left for after_train_iter.
        self._losses = {}
        step(**kwargs)

    def _stop(self, runner: Runner) -> None:
        named = bare_model(runner).named_parameters()
        gradients = [
            name
            for name, parameter in named
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        losses = {name: float(value) for name, value in self._losses.items()}
        rank = f'_rank{get_rank()}' if get_world_size() > 1 else ''
        folder = Path(runner.work_dir) / 'non_finite' / f'iter_{runner.iter + 1}{rank}'
        record = dict(
            iteration=runner.iter + 1,
            epoch=runner.epoch + 1,
            losses=losses,
            gradients=gradients,
            images=image_names(self._batch),
        )
        try:
            write_record(folder, record, self._batch, self._before, bare_model(runner), runner.cfg)
            written = f'repeat it: {shlex.join(replay_command(folder))}'
        except InputError as error:
            written = f'it cannot be repeated: {error}'
        raise InputError(
            f'iteration {runner.iter + 1} (epoch {runner.epoch + 1})',
            self._found(losses, gradients, record['images']),
            f'no step was made with it; {written}',
        )

    def _found(self, losses: dict, gradients: list[str], images: list[str]) -> str:
        bad = [f'{name} = {value}' for name, value in losses.items() if not math.isfinite(value)]
        parts = [f'losses that are not finite: {", ".join(bad)}'] if bad else []
        if gradients:
            more = ', ...' if len(gradients) > SHOWN else ''
            parts.append(
                f'gradients of {len(gradients)} parameters that are not finite: '
                f'{", ".join(gradients[:SHOWN])}{more}'
            )
        if not parts and get_world_size() > 1:
            parts = ['a loss or gradient of another process is not finite']
        elif not parts:
            parts = ['the norm of all gradients overflows']
        if self._skipped:
            parts.append(f'no step in {self._skipped} iterations of mixed precision')
        parts.append(f'images: {", ".join(images) or "without names"}')
        return '; '.join(parts)


def replay_command(folder: str | Path) -> list[str]:
    """list[str]: what repeats a recorded iteration."""
    return [Path(sys.executable).name, '-m', 'polynl_mmdet.engine.replay', str(folder)]


def _norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    if not dense:
        return torch.zeros(())
    if hasattr(torch.nn.utils, 'get_total_norm'):
        return torch.nn.utils.get_total_norm(dense)
    norms = [torch.linalg.vector_norm(gradient) for gradient in dense]  # torch < 2.6
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))


def _total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """Tensor: the loss; not finite if any loss is not."""
    finite = [value.float().reshape(()) for name, value in losses.items() if 'loss' in name]
    return torch.stack(finite).sum() if finite else torch.zeros(())


def _all_finite(*values: torch.Tensor) -> bool:
    """bool: whether they are finite, in every process."""
    device = values[0].device
    finite = torch.stack([torch.isfinite(value.float().to(device)) for value in values]).all()
    finite = finite.float()
    all_reduce(finite, 'min')
    return bool(finite)
