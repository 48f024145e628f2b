"""The states of a process's random generators, as plain values that a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def generator_states(cuda: bool = True) -> dict:
    """Read the generators that models and transforms draw from.

    Args:
        cuda (bool): Whether to read those of this process's GPUs too. Defaults to True.

    Returns:
        dict: ``python``, ``numpy``, ``torch`` and ``cuda``, of tuples, lists, numbers and tensors,
            loadable with ``weights_only``.
    """
    name, key, *rest = np.random.get_state()
    return dict(
        python=random.getstate(),
        numpy=(name, key.tolist(), *rest),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_initialized() else [],
    )


def set_generator_states(states: dict) -> None:
    """Put the generators into states that :func:`generator_states` read.

    Args:
        states (dict): Its result. Tensors may have been moved to another device since.
    """
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'].cpu())
    for device, state in enumerate(states['cuda'][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state.cpu(), device)


def seed_cpu_generators(entropy: Sequence[int]) -> None:
    """Seed Python's, NumPy's and torch's CPU generator.

    ``torch.manual_seed`` would seed the GPUs too, which belong to the model.

    Args:
        entropy (Sequence[int]): Numbers of 0 or more. Any difference gives unrelated streams.
    """
    words = np.random.SeedSequence(entropy).generate_state(8)
    random.seed(int.from_bytes(words[:2].tobytes(), 'little'))
    torch.default_generator.manual_seed(int.from_bytes(words[2:4].tobytes(), 'little') >> 1)
    np.random.seed(words[4:])


@contextmanager
def cpu_generators_kept() -> Iterator[None]:
    """Put the CPU generators back at the end of the block to where they were before it."""
    states = generator_states(cuda=False)
    try:
        yield
    finally:
        set_generator_states(states)
