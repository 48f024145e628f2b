"""A training that was stopped and resumed ends with the weights of one that was not."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from polynl_mmdet.engine.hooks.runner_parts import bare_model, optim_wrappers
from polynl_mmdet.engine.resume.data_position import DataPosition, batch_shape
from polynl_mmdet.engine.resume.random_state import generator_states, set_generator_states
from polynl_mmdet.ops import product_library, set_product_library

KEY = 'resume_state'


@HOOKS.register_module()
class ResumeStateHook(Hook):
    """Keep in each checkpoint what else a training depends on, and put it back on ``--resume``.

    mmengine keeps weights, optimizer, schedules, loss scale, averages and log. This hook adds:

    - the states of Python's, NumPy's, torch's and CUDA's generators, of every process;
    - the library of Poly-NL's products on a CPU, which each process else chooses by a measurement;
    - the place in the data, so that a checkpoint in the middle of an epoch goes on from there;
    - norm statistics of the other processes, which differ where norms are not synchronised;
    - the gradients that ``accumulative_counts`` is adding up (with one process);
    - whether the validation that follows was made. If not, it is made before training goes on.

    It also takes away two things that no checkpoint could hold. Each batch is read with generators
    seeded by its place in the training (see :mod:`..resume.seeded_batches`), because worker
    processes draw ahead. And validation leaves no trace in the generators.

    Not covered, so not exact: data sets and transforms that remember earlier images (``Cached*``
    in mmdet), samplers that draw from the global generator (torch's ``RandomSampler``), and hooks
    with a memory of their own that is not in the checkpoint (``EarlyStoppingHook``). Equality to
    the bit also needs the same number of processes and threads, and deterministic kernels.

    Works with any checkpoint hook; where there are several processes, only
    :class:`~polynl_mmdet.engine.hooks.checkpoint_hook.AtomicCheckpointHook` collects their states.
    """

    # After the others: what they draw before training or validation is theirs to repeat.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._loaded: dict | None = None
        self._position: DataPosition | None = None
        self._gathered: list | None = None
        self._before_val: dict | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what a checkpoint says until training begins."""
        if runner._resume:
            self._loaded = checkpoint.get(KEY, {})

    def before_train(self, runner: Runner) -> None:
        """Seed the batches; on resume, put back generators, gradients and validation."""
        loaded, self._loaded = self._loaded, None
        self._gathered = self._before_val = None  # Of a training that an error ended.
        if loaded is None:  # A new training, or one more Runner.train().
            self._position = DataPosition(runner, self._position and self._position.state())
            return
        missing = _missing(runner, loaded)
        if missing:
            runner.logger.warning(
                f'The checkpoint is resumed, but not exactly: {missing}. The generators begin '
                'anew, the order of the images may be another, an epoch that was not ended begins '
                'anew, and gradients that were being accumulated are lost. Weights, optimizer, '
                'schedules and log go on.'
            )
            self._position = DataPosition(runner)
            return
        own = loaded['processes'][get_rank()]
        self._position = DataPosition(runner, own['data'])
        for name, buffer in bare_model(runner).named_buffers():
            if own['buffers'] is not None:
                buffer.copy_(own['buffers'][name])
        for name, parameter in bare_model(runner).named_parameters():
            if name in loaded['gradients']:
                parameter.grad = loaded['gradients'][name].to(parameter.device)
        set_generator_states(own['generators'])
        if 'products' in own:
            set_product_library(own['products'])
        if not loaded['validated'] and _validation_is_due(runner, self._position):
            runner.logger.info('The validation that the interrupted run did not come to')
            runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin a pass over the data, at the place of the checkpoint if one was resumed."""
        self._position.begin_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """End what :meth:`before_train_epoch` began."""
        self._position.end_epoch()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count a batch as used."""
        self._position.count()

    def before_val(self, runner: Runner) -> None:
        """Note the generators' states."""
        self._before_val = generator_states()

    def after_val(self, runner: Runner) -> None:
        """Put the generators back to where they were before validation."""
        set_generator_states(self._before_val)
        self._before_val = None

    def before_gather_checkpoint(self, runner: Runner) -> None:
        """Collect the states of all processes; called on each before a checkpoint."""
        if self._position is not None:
            self._gathered = all_gather_object(self._own_state(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state to a checkpoint."""
        if self._position is None or 'optimizer' not in checkpoint:
            return  # Not one to go on from.
        processes, self._gathered = self._gathered, None
        checkpoint[KEY] = dict(
            # mmengine's own CheckpointHook saves in the first process and tells no other.
            processes=processes or [self._own_state(runner)],
            gradients=_waiting_gradients(runner),
            validated=self._before_val is not None,
        )

    def _own_state(self, runner: Runner) -> dict:
        named = bare_model(runner).named_buffers()
        return dict(
            generators=self._before_val or generator_states(),
            products=product_library(),
            data=self._position.state(),
            buffers={name: buffer.cpu() for name, buffer in named} if get_rank() else None,
        )


def _missing(runner: Runner, loaded: dict) -> str | None:
    """Return why a run cannot go on exactly from a checkpoint's state; None if it can."""
    if not loaded:
        return f'it has no {KEY!r}, as ResumeStateHook would have added'
    if len(loaded['processes']) != get_world_size():
        return f'it holds the state of {len(loaded["processes"])} processes, not {get_world_size()}'
    now = batch_shape(runner.train_loop)
    before = {key: loaded['processes'][get_rank()]['data'][key] for key in now}
    return None if before == now else f'it was trained with {before}, this run has {now}'


def _validation_is_due(runner: Runner, position: DataPosition) -> bool:
    """Return whether the loop would have validated at this place, by its own rule."""
    loop = runner.train_loop
    if runner.val_loop is None or (position.by_epoch and position.used):
        return False
    done, end = (loop.epoch, loop.max_epochs) if position.by_epoch else (loop.iter, loop.max_iters)
    loop._decide_current_val_interval()
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)


def _waiting_gradients(runner: Runner) -> dict[str, torch.Tensor]:
    """Return the gradients of a step that is not complete, by the parameters' names."""
    if get_world_size() > 1 or all(one.should_update() for one in optim_wrappers(runner)):
        return {}
    named = bare_model(runner).named_parameters()
    return {name: p.grad.cpu() for name, p in named if p.grad is not None}
