"""A training that was stopped and resumed ends with the weights of one that was not."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from polynl_mmdet.engine.resume.random_state import generator_states, set_generator_states
from polynl_mmdet.engine.resume.train_batches import TrainBatches, batch_shape
from polynl_mmdet.engine.runner_parts import bare_model, optim_wrappers

KEY = 'resume_state'


@HOOKS.register_module()
class ResumeStateHook(Hook):
    """Keeps in each checkpoint what else a training depends on, and puts it back on ``--resume``.

    mmengine keeps weights, optimizer, schedules, loss scale, averages and log. This hook adds:

    - the states of Python's, NumPy's, torch's and CUDA's generators, of every process;
    - the place in the data: the sampler's seed, the pass over the data and the batches of it that
      were used, so that a checkpoint in the middle of an epoch goes on from there;
    - norm statistics of the other processes, which differ where norms are not synchronised;
    - what gradient accumulation holds (with one process);
    - whether the validation that follows was made. If not, it is made before training goes on.

    It also takes away two things that no checkpoint could hold. Each batch is read with generators
    seeded by its place in the training (see :mod:`..resume.seeded_batches`), because
    worker processes draw ahead. And validation leaves no trace in the generators.

    Not covered, so not exact: data sets and transforms that remember earlier images (``Cached*``
    in mmdet), samplers that draw from the global generator, and hooks with a memory of their own
    that is not in the checkpoint (mmengine's ``EarlyStoppingHook``). Equality to the bit also needs
    the same number of processes and threads, and deterministic kernels.

    Needs :class:`~polynl_mmdet.engine.hooks.checkpoint_hook.AtomicCheckpointHook` where there are
    several processes: it is what collects their states.
    """

    # After the others: what they draw before training or validation is theirs to repeat.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._loaded: dict | None = None
        self._to_restore: dict | None = None
        self._gathered: list | None = None
        self._kept_from_validation: dict | None = None
        self._batches: TrainBatches | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what a checkpoint says until training begins.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was loaded.
        """
        if runner._resume and 'meta' in checkpoint:
            self._loaded = checkpoint.get(KEY, {})

    def before_train(self, runner: Runner) -> None:
        """Seed the batches; on resume, put back generators, gradients and validation.

        Args:
            runner (Runner): The runner.
        """
        loaded, self._loaded = self._loaded, None
        state = self._fitting(runner, loaded)
        own = state['processes'][get_rank()] if state else None
        self._batches = TrainBatches(runner, own and own['data'])
        if state is None:
            return
        if own['buffers'] is not None:
            for name, buffer in bare_model(runner).named_buffers():
                buffer.copy_(own['buffers'][name])
        if state['gradients'] is not None:
            _set_gradients(runner, state['gradients'])
        set_generator_states(own['generators'])
        if self._batches.inside_a_pass:
            # Once more after what others did before this epoch in the first run too.
            self._to_restore = own['generators']
        if not state['validated'] and _validation_is_due(runner, self._batches):
            runner.logger.info('The validation that the interrupted run did not come to')
            runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin a pass over the data, at the place of the checkpoint if one was resumed.

        Args:
            runner (Runner): The runner.
        """
        self._batches.begin_epoch(runner)
        if self._to_restore is not None:
            set_generator_states(self._to_restore)
            self._to_restore = None

    def after_train_epoch(self, runner: Runner) -> None:
        """End what :meth:`before_train_epoch` began.

        Args:
            runner (Runner): The runner.
        """
        self._batches.end_epoch(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count a batch as used.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Its number in the epoch.
            data_batch (Any): The batch.
        """
        self._batches.count()

    def before_val(self, runner: Runner) -> None:
        """Note the generators' states.

        Args:
            runner (Runner): The runner.
        """
        self._kept_from_validation = generator_states()

    def after_val(self, runner: Runner) -> None:
        """Put the generators back to where they were before validation.

        Args:
            runner (Runner): The runner.
        """
        set_generator_states(self._kept_from_validation)
        self._kept_from_validation = None

    def before_gather_checkpoint(self, runner: Runner) -> None:
        """Collect the states of all processes; called on each before a checkpoint.

        Args:
            runner (Runner): The runner.
        """
        self._gathered = all_gather_object(self._own_state(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state to a checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What will be written.
        """
        if self._batches is None or 'optimizer' not in checkpoint:
            return  # not one to go on from
        processes, self._gathered = self._gathered, None
        if processes is None:
            # mmengine's own CheckpointHook saves in the first process and tells no other.
            processes = [self._own_state(runner)] + [None] * (get_world_size() - 1)
        epoch = checkpoint['meta']['epoch']
        if self._batches.by_epoch and epoch > self._batches.epoch:
            # Saved after an epoch's last batch, to go on with the next epoch.
            for process in filter(None, processes):
                process['data'].update(pass_number=epoch, used=0)
        checkpoint[KEY] = dict(
            processes=processes,
            gradients=_waiting_gradients(runner) if get_world_size() == 1 else None,
            validated=self._kept_from_validation is not None,
        )

    def _own_state(self, runner: Runner) -> dict:
        buffers = None
        if get_rank() > 0:
            named = bare_model(runner).named_buffers()
            buffers = {name: buffer.cpu() for name, buffer in named}
        return dict(
            generators=self._kept_from_validation or generator_states(),
            data=self._batches.state(),
            buffers=buffers,
        )

    def _fitting(self, runner: Runner, loaded: dict | None) -> dict | None:
        """dict, optional: the state, if this run can go on from it; the log says why not."""
        if loaded is None:
            return None
        missing = None
        if not loaded:
            missing = f'it has no {KEY!r}, as ResumeStateHook would have added'
        elif len(loaded['processes']) != get_world_size():
            missing = f'{len(loaded["processes"])} processes wrote it, {get_world_size()} go on'
        elif None in loaded['processes']:
            missing = 'it was not written by AtomicCheckpointHook, and holds one process alone'
        else:
            data, now = loaded['processes'][get_rank()]['data'], batch_shape(runner)
            before = {key: data[key] for key in now}
            if before != now:
                missing = f'it was trained with {before}, this run has {now}'
        if missing is None:
            return loaded
        runner.logger.warning(
            f'The checkpoint is resumed, but not exactly: {missing}. The generators begin anew, '
            'the order of the images may be another, an epoch that was not ended begins anew, '
            'and gradients that were being accumulated are lost. Weights, optimizer, schedules '
            'and log go on.'
        )
        return None


def _validation_is_due(runner: Runner, batches: TrainBatches) -> bool:
    """bool: whether the loop would have validated at this place, by its own rule."""
    loop = runner.train_loop
    if runner.val_loop is None or (batches.by_epoch and batches.inside_a_pass):
        return False
    by_epoch = batches.by_epoch
    done, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    loop._decide_current_val_interval()
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)


def _waiting_gradients(runner: Runner) -> dict[str, torch.Tensor] | None:
    """dict, optional: gradients of steps that are not complete, by the parameters' names."""
    if all(wrapper.should_update() for wrapper in optim_wrappers(runner)):
        return None
    named = bare_model(runner).named_parameters()
    return {name: p.grad.cpu() for name, p in named if p.grad is not None}


def _set_gradients(runner: Runner, gradients: dict[str, torch.Tensor]) -> None:
    for name, parameter in bare_model(runner).named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device).clone()
