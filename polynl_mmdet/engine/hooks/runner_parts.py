"""Parts of a runner and of a batch that come in more than one form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn


def bare_model(runner: Runner) -> nn.Module:
    """Return the model, without a wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """Return the optimizers' wrappers: one, but for models that have several optimizers."""
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def data_samples(batch: Any) -> Iterator[BaseDataElement]:
    """Yield the data samples of a batch, in whatever dictionaries, lists and tuples they lie."""
    if isinstance(batch, BaseDataElement):
        yield batch
    elif isinstance(batch, (dict, list, tuple)):
        for part in batch.values() if isinstance(batch, dict) else batch:
            yield from data_samples(part)
