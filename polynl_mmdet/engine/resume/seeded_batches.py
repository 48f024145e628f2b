"""Batches whose images and random transforms depend on their place in the training alone.

A worker process draws ahead of the training and ends with it, so its generators cannot be put
back to where they were. Instead each batch is read with generators seeded by (seed, process,
pass over the data, batch in the pass): whoever reads it, and whenever, gets the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler, get_worker_info

from polynl_mmdet.engine.resume.random_state import cpu_generators_kept, seed_cpu_generators


class SeededBatch(Sequence):
    """The indices of one batch; while they are iterated over, the generators are seeded.

    PyTorch's data loader reads a batch by iterating over its indices, in a worker or in the
    training process, whatever data set and wrappers there are. In the training process the
    generators are then put back: they belong to the model. In a worker they stay, so that a
    ``collate_fn`` that draws is seeded too.

    Args:
        indices (Sequence[int]): The images.
        entropy (tuple[int, ...]): What the generators are seeded with.
    """

    def __init__(self, indices: Sequence[int], entropy: tuple[int, ...]) -> None:
        self.indices = list(indices)
        self.entropy = entropy

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int | slice) -> Any:
        return self.indices[item]

    def __iter__(self) -> Iterator[int]:
        if get_worker_info() is not None:
            seed_cpu_generators(self.entropy)
            yield from self.indices
        else:
            with cpu_generators_kept():
                seed_cpu_generators(self.entropy)
                yield from self.indices


class SeededBatchSampler(Sampler):
    """Another batch sampler's batches, as :class:`SeededBatch`, from any place on.

    Batches that are passed over are drawn from the sampler, so that samplers with a memory (such
    as mmdet's ``AspectRatioBatchSampler``) are where they should be, but no image is read.

    Args:
        batch_sampler (Sampler): Gives lists of indices.
        entropy (tuple[int, ...]): The seed and this process's rank.
    """

    def __init__(self, batch_sampler: Sampler, entropy: tuple[int, ...]) -> None:
        self.batch_sampler = batch_sampler
        self.entropy = entropy
        self.current_pass = 0
        self.begin_at(0, 0)

    def begin_at(self, pass_number: int, batch: int) -> None:
        """Set where the next iteration begins; those after it begin at the passes that follow.

        Args:
            pass_number (int): Passes over the data before it.
            batch (int): Batches of that pass before it.
        """
        self._next = (pass_number, batch)

    def __iter__(self) -> Iterator[SeededBatch]:
        # Runs with the first batch: a data loader with workers makes two iterators and uses one.
        self.current_pass, skipped = self._next
        self.begin_at(self.current_pass + 1, 0)
        if hasattr(getattr(self.batch_sampler, 'sampler', None), 'set_epoch'):
            # mmengine's DistSamplerSeedHook has set epoch 0 in a loop by iteration, also if it is
            # resumed in a later pass.
            self.batch_sampler.sampler.set_epoch(self.current_pass)
        for number, indices in enumerate(self.batch_sampler):
            if number >= skipped:
                yield SeededBatch(indices, (*self.entropy, self.current_pass, number))

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __getattr__(self, name: str) -> Any:
        # What others look for: sampler (mmengine sets its epoch), batch_size, drop_last.
        if name == 'batch_sampler':
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)
