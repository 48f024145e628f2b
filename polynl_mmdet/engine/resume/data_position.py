"""Where a training is in its data, and how it starts from there."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, Sampler

from polynl_mmdet.engine.resume.seeded_batches import SeededBatchSampler
from polynl_mmdet.errors import InputError


class DataPosition:
    """Put a :class:`SeededBatchSampler` into a run's data loader, and know the place in it.

    Works with mmengine's loops by epoch and by iteration, with and without worker processes. In a
    loop by iteration no image is read to come to the place, as mmengine's own loop does.

    Args:
        runner (Runner): A runner whose training loop is built.
        state (dict, optional): What :meth:`state` gave in the run to go on from. Defaults to None:
            an epoch begins anew, and a loop by iteration goes on at its count.

    Raises:
        InputError: The data loader has no batch sampler.
    """

    def __init__(self, runner: Runner, state: dict | None = None) -> None:
        self._loop = loop = runner.train_loop
        self.by_epoch = not hasattr(loop, 'dataloader_iterator')
        self._sampler = SeededBatchSampler(self._unused_sampler(runner), (runner.seed, get_rank()))
        # DataLoader's own __setattr__ forbids this once it is made, and another one would have to
        # repeat whatever settings it has. No iterator of it is in use.
        object.__setattr__(loop.dataloader, 'batch_sampler', self._sampler)
        # Its iterators draw a seed for their workers: from here, not from the model's generator.
        loop.dataloader.generator = torch.Generator().manual_seed(runner.seed)
        if state:
            self._pass, self.used = state['pass_number'], state['used']
            if state['sampler_seed'] is not None:
                self._sampler.sampler.seed = state['sampler_seed']
        else:
            self._pass, self.used = (loop.epoch, 0) if self.by_epoch else (0, loop.iter)
        if self.by_epoch:
            self._begin_pass()
        else:
            self._sampler.begin_at(self._pass, self.used)
            self._restart_iterator()

    def state(self) -> dict:
        """Return the place, as plain values.

        Returns:
            dict: ``sampler_seed`` (int or None), ``pass_number`` (passes over the data before this
                one), ``used`` (batches of this pass), and :func:`batch_shape`'s.
        """
        return dict(
            sampler_seed=getattr(getattr(self._sampler, 'sampler', None), 'seed', None),
            pass_number=self._pass,
            used=self.used,
            **batch_shape(self._loop),
        )

    def begin_epoch(self, runner: Runner) -> None:
        """Begin an epoch: at its first batch, or the first time where the resumed run was."""
        self.end_epoch()  # Of a training that an error ended.
        if self.by_epoch:
            self._begin_pass()
        if self.by_epoch and self.used:
            runner.logger.info(f'{self.used} batches of this epoch were used before; skipped')
            run_iter, first = self._loop.run_iter, self.used
            # Hooks and the log see each batch's number in the whole epoch.
            self._loop.run_iter = lambda number, batch: run_iter(number + first, batch)

    def end_epoch(self) -> None:
        """End an epoch."""
        vars(self._loop).pop('run_iter', None)

    def count(self) -> None:
        """Count one batch as used."""
        if self._pass != self._sampler.current_pass:
            # A loop by iteration begins a pass by itself, when the one before is used up.
            self._pass, self.used = self._sampler.current_pass, 0
        self.used += 1

    def _begin_pass(self) -> None:
        if self._pass != self._loop.epoch:
            self._pass, self.used = self._loop.epoch, 0
        self._sampler.begin_at(self._pass, self.used)

    def _unused_sampler(self, runner: Runner) -> Sampler:
        """Return the loader's batch sampler, with nothing drawn from it."""
        loader, config = self._loop.dataloader, runner._train_dataloader
        current = loader.batch_sampler
        if current is None:
            raise InputError('train_dataloader', 'it has no batches', 'leave ResumeStateHook out')
        if isinstance(current, SeededBatchSampler):  # Of an earlier Runner.train().
            current = current.batch_sampler
        if self.by_epoch or not isinstance(config, dict):
            return current
        # mmengine's loop by iteration has set workers going, and its endless samplers with them.
        sampler = DATA_SAMPLERS.build(
            config['sampler'],
            default_args=dict(
                dataset=loader.dataset, seed=getattr(current.sampler, 'seed', runner.seed)
            ),
        )
        size = current.batch_size
        if config.get('batch_sampler') is None:
            return BatchSampler(sampler, size, current.drop_last)
        return DATA_SAMPLERS.build(
            config['batch_sampler'], default_args=dict(sampler=sampler, batch_size=size)
        )

    def _restart_iterator(self) -> None:
        loop = self._loop
        loop.dataloader_iterator = loop.dataloader._iterator = None  # ends its workers
        iterator: Any = _InfiniteDataloaderIterator(loop.dataloader)
        if hasattr(loop, 'fast_forward_on_resume'):
            loop.fast_forward_on_resume = True  # The onedl fork's loop then passes over nothing.
        else:
            # mmengine's passes over as many batches as it has made iterations.
            iterator = chain(repeat(None, loop.iter), iterator)
        loop.dataloader_iterator = iterator


def batch_shape(loop: Any) -> dict[str, int | None]:
    """Return ``images`` of the data set and ``batch_size``: a place means nothing without."""
    loader = loop.dataloader
    size = getattr(loader.batch_sampler, 'batch_size', None)
    return dict(images=len(loader.dataset), batch_size=size)
