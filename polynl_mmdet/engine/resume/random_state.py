"""The states of all generators of a process, as plain values that a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def generator_states() -> dict:
    """Read the generators that models and transforms draw from.

    Returns:
        dict: ``python``, ``numpy``, ``torch`` and ``cuda`` (a list, one state a device of this
            process), of tensors, numbers and None, loadable with ``weights_only``.
    """
    _, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    return dict(
        python=dict(words=torch.tensor(words, dtype=torch.int64), gauss=gauss),
        numpy=dict(
            key=torch.from_numpy(numpy_state['state']['key'].astype(np.int64)),
            pos=int(numpy_state['state']['pos']),
            has_gauss=int(numpy_state['has_gauss']),
            gauss=float(numpy_state['gauss']),
        ),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    )


def set_generator_states(states: dict) -> None:
    """Put the generators into states that :func:`generator_states` read.

    Args:
        states (dict): Its result. Tensors may have been moved to another device since.
    """
    words = tuple(states['python']['words'].tolist())
    random.setstate((random.Random.VERSION, words, states['python']['gauss']))
    stored = states['numpy']
    np.random.set_state(
        dict(
            bit_generator='MT19937',
            state=dict(key=stored['key'].cpu().numpy().astype(np.uint32), pos=stored['pos']),
            has_gauss=stored['has_gauss'],
            gauss=stored['gauss'],
        )
    )
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
    """Inside, draws from the CPU generators leave no trace outside."""
    python, numpy_state, torch_state = (
        random.getstate(),
        np.random.get_state(legacy=False),
        torch.get_rng_state(),
    )
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
