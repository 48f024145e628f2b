"""Parts of a runner that come in more than one form."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn


def bare_model(runner: Runner) -> nn.Module:
    """nn.Module: the model, without a wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """list[OptimWrapper]: the optimizers' wrappers; one, but for models that have several."""
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if hasattr(wrapper, 'optim_wrappers') else [wrapper]
