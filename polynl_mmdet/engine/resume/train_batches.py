"""The training batches of a run: seeded by their place, and started at any place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler

from polynl_mmdet.engine.resume.seeded_batches import SeededBatchSampler


class TrainBatches:
    """Puts a :class:`SeededBatchSampler` into a run's data loader, and knows the place in it.

    Works with mmengine's loops by epoch and by iteration, with and without worker processes.

    Args:
        runner (Runner): A runner whose training loop is built.
        state (dict, optional): What :meth:`state` gave in the run to go on from. Defaults to None:
            a new run.
    """

    def __init__(self, runner: Runner, state: dict | None = None) -> None:
        loop = runner.train_loop
        self.by_epoch = not hasattr(loop, 'dataloader_iterator')
        self.epoch = loop.epoch
        self._pass = 0
        self._used = 0
        self._resumed_at = 0
        self._sampler: SeededBatchSampler | None = None
        loader = loop.dataloader
        self._shape = batch_shape(runner)
        if loader.batch_sampler is None or not hasattr(loader.batch_sampler, 'sampler'):
            runner.logger.warning(
                'The training data loader has no batch sampler: its place is not kept'
            )
            return
        seed = state['seed'] if state else runner.seed
        batch_sampler = self._fresh_sampler(runner, loader, state)
        self._sampler = SeededBatchSampler(batch_sampler, (seed, get_rank()))
        self._seed = seed
        # DataLoader's own __setattr__ forbids this once it is made, and another one would have to
        # repeat whatever settings it has. No iterator of it is in use.
        object.__setattr__(loader, 'batch_sampler', self._sampler)
        # Its iterators draw a seed for their workers: from here, not from the model's generator.
        loader.generator = torch.Generator().manual_seed(seed)
        if isinstance(self._sampler.sampler, RandomSampler):
            runner.logger.warning(
                "torch's RandomSampler draws from the model's generator: the order of the "
                "images is not kept in the middle of a pass; use mmengine's DefaultSampler"
            )
        if state:
            self._pass = state['pass_number']
            self._used = self._resumed_at = state['used']
            self._sampler.begin_at(self._pass, self._used)
        if not self.by_epoch:
            self._restart_iterator(loop, state)

    def _fresh_sampler(self, runner: Runner, loader: DataLoader, state: dict | None) -> Sampler:
        """Sampler: the loader's batch sampler, with nothing drawn and the seed of the state."""
        current = loader.batch_sampler
        seed = state['sampler_seed'] if state else getattr(current.sampler, 'seed', None)
        config = runner._train_dataloader
        if self.by_epoch or not isinstance(config, dict):
            if seed is not None:
                current.sampler.seed = seed
            return current
        # mmengine's loop by iteration has set workers going, and its endless samplers with them.
        config = copy.deepcopy({key: config.get(key) for key in ('sampler', 'batch_sampler')})
        sampler = DATA_SAMPLERS.build(
            config['sampler'], default_args=dict(dataset=loader.dataset, seed=seed)
        )
        if config['batch_sampler'] is None:
            # mmengine sets the epoch of the one that the loader knows.
            object.__setattr__(loader, 'sampler', sampler)
            return BatchSampler(sampler, current.batch_size, current.drop_last)
        return DATA_SAMPLERS.build(
            config['batch_sampler'],
            default_args=dict(sampler=sampler, batch_size=current.batch_size),
        )

    def _restart_iterator(self, loop: Any, state: dict | None) -> None:
        endless = type(loop.dataloader_iterator)
        loop.dataloader_iterator = None  # ends its workers
        loop.dataloader._iterator = None
        iterator = endless(loop.dataloader)
        if state:
            iterator._epoch = state['pass_number']
            # The onedl fork's loop may be told not to pass over anything.
            if not getattr(loop, 'fast_forward_on_resume', False):
                iterator = _AlreadyThere(iterator, loop.iter)
        loop.dataloader_iterator = iterator

    @property
    def inside_a_pass(self) -> bool:
        """bool: whether the run that is resumed had used some batches of a pass, not all."""
        return self._resumed_at > 0

    def state(self) -> dict:
        """The place, as plain values.

        Returns:
            dict: ``seed`` and ``sampler_seed`` (int or None), ``pass_number`` (passes before this
                one), ``used`` (batches of this pass), and :func:`batch_shape`'s.
        """
        if self._sampler is None:
            seeds = dict(seed=0, sampler_seed=None)
            return dict(seeds, pass_number=self.epoch, used=0, **self._shape)
        return dict(
            **self._shape,
            seed=self._seed,
            sampler_seed=getattr(self._sampler.sampler, 'seed', None),
            pass_number=self._pass,
            used=self._used,
        )

    def begin_epoch(self, runner: Runner) -> None:
        """Begin an epoch: at its first batch, or the first time where the resumed run was.

        Args:
            runner (Runner): The runner.
        """
        self.epoch = runner.epoch
        if self._sampler is None or not self.by_epoch:
            return
        self._pass = runner.epoch
        self._used, self._resumed_at = self._resumed_at, 0
        self._sampler.begin_at(self._pass, self._used)
        if self._used:
            runner.logger.info(f'{self._used} batches of this epoch were used before; skipped')
            _number_batches_from(runner.train_loop, self._used)

    def end_epoch(self, runner: Runner) -> None:
        """End an epoch.

        Args:
            runner (Runner): The runner.
        """
        vars(runner.train_loop).pop('run_iter', None)
        if self.by_epoch:
            self.epoch = self._pass = runner.epoch + 1
            self._used = 0

    def count(self) -> None:
        """Count one batch as used."""
        if self._sampler is not None and self._pass != self._sampler.current_pass:
            # The loop by iteration begins a pass by itself, when the one before is used up.
            self._pass, self._used = self._sampler.current_pass, 0
        self._used += 1


def batch_shape(runner: Runner) -> dict[str, int | None]:
    """dict: ``images`` of the data set, and ``batch_size``; a place means nothing without."""
    loader = runner.train_loop.dataloader
    size = getattr(loader.batch_sampler, 'batch_size', None)
    return dict(images=len(loader.dataset), batch_size=size)


class _AlreadyThere:
    """Stands before an iterator whose first batches the loop will pass over: it already has.

    mmengine's loop by iteration would read every image again to come to its place.
    """

    def __init__(self, iterator: Any, steps: int) -> None:
        self._iterator = iterator
        self._steps = steps

    def __iter__(self) -> _AlreadyThere:
        return self

    def __next__(self) -> Any:
        if self._steps:
            self._steps -= 1
            return None
        return next(self._iterator)

    def skip_iter(self, num_iters: int) -> None:
        """Pass over batches, as the onedl fork's loop asks for it."""
        self._steps = max(0, self._steps - num_iters)


def _number_batches_from(loop: Any, first: int) -> None:
    """For one epoch: hooks and the log see each batch's number in the whole epoch."""
    run_iter = loop.run_iter
    loop.run_iter = lambda number, batch: run_iter(number + first, batch)
