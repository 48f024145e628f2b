"""A training of a second that draws from every generator, and can be stopped anywhere."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import polynl_mmdet  # noqa: F401  (registers the hooks)

_COUNT = itertools.count()


@DATASETS.register_module(force=True)
class DrawingDataset(BaseDataset):
    """Samples of 4 numbers; each read draws from Python's, NumPy's and torch's generator."""

    def __init__(self, length=22, **kwargs):
        self.length = length
        super().__init__(serialize_data=False, **kwargs)  # no gc.collect()

    def load_data_list(self):
        """Wide and high images in an uneven mixture, for the aspect ratio sampler."""
        return [dict(width=3 + (i * 7) % 5, height=5, number=i) for i in range(self.length)]

    def prepare_data(self, idx):
        """One sample."""
        noise = [random.random(), np.random.rand(), float(torch.rand(())), float(np.random.randn())]
        number = self.get_data_info(idx)['number']
        return dict(inputs=torch.tensor(noise) + number / 10, number=torch.tensor(number))


@MODELS.register_module(force=True)
class DrawingModel(BaseModel):
    """A norm, dropout, and noise from Python's and NumPy's generator."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3)
        )
        self.head = torch.nn.Linear(8, 1)

    def forward(self, inputs, number, mode='tensor'):
        """The losses, or in validation the outputs."""
        x = torch.stack(inputs) if isinstance(inputs, list) else inputs
        y = self.head(self.net(x)).squeeze(1)
        if mode == 'predict':
            torch.rand(3), np.random.rand(3), random.random()  # validation draws too
            return [dict(value=float(v)) for v in y]
        number = torch.stack(number) if isinstance(number, list) else number
        target = number.float() + random.random() + np.random.randn()
        return dict(loss_value=((y - target) ** 2).mean() / 100, loss_size=(y**2).mean() / 1000)


@METRICS.register_module(force=True)
class MeanOutput(BaseMetric):
    """The mean of the outputs."""

    def process(self, data_batch, data_samples):
        """Keep the outputs."""
        self.results.extend(sample['value'] for sample in data_samples)

    def compute_metrics(self, results):
        """Average them."""
        return dict(acc=float(np.mean(results)), spread=float(np.std(results)))


class Stopped(Exception):
    """The run was interrupted."""


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Interrupts a run after some steps, at a given event."""

    priority = 'LOWEST'

    def __init__(self, iteration, event='after_train_iter'):
        self.iteration = iteration
        setattr(self, event, self._stop)

    def _stop(self, runner, *args, **kwargs):
        if runner.iter >= self.iteration:
            raise Stopped


def train(work_dir, **options):
    """Train, or stop on the way; :func:`make_runner` has the options.

    Returns:
        Runner: After training.
    """
    runner = make_runner(work_dir, **options)
    with contextlib.suppress(Stopped):
        runner.train()
    end_workers()
    return runner


def make_runner(
    work_dir, *, resume=False, load_from=None, stop=None, event='after_train_iter', **more
):
    """Build the runner of a training.

    Args:
        work_dir (Path): The run's folder.
        resume (bool): As in mmengine.
        load_from (Path, optional): As in mmengine.
        stop (int, optional): Iterations before the run is interrupted.
        event (str): The hook method in which it is.
        **more: ``by_epoch``, ``save_by_epoch``, ``workers``, ``persistent``, ``sampler``,
            ``batch_sampler``, ``length``, ``total`` (epochs or iterations), ``interval``, ``seed``,
            ``checkpoint``, ``accumulate``, ``hooks`` (default hooks, None for one to leave out),
            ``validated`` (False: a training without validation), ``launcher``, ``loop`` (more of
            the training loop's arguments).

    Returns:
        Runner: It can train, validate and test.
    """
    by_epoch = more.get('by_epoch', True)
    workers = more.get('workers', 0)
    total = more.get('total', 3 if by_epoch else 17)
    launcher = more.get('launcher', 'none')
    dataset = dict(type='DrawingDataset', length=more.get('length', 22))
    loader = dict(
        dataset=dataset,
        sampler=dict(type=more.get('sampler', 'DefaultSampler' if by_epoch else 'InfiniteSampler')),
        batch_size=4,
        num_workers=workers,
        persistent_workers=more.get('persistent', False),
        collate_fn=dict(type='default_collate'),
    )
    if more.get('batch_sampler'):
        loader['batch_sampler'] = more['batch_sampler']
    every = more.get('interval', 1 if more.get('save_by_epoch', by_epoch) else 4)
    checkpoint = dict(
        type='AtomicCheckpointHook',
        interval=every,
        by_epoch=more.get('save_by_epoch', by_epoch),
        save_best='acc',
        rule='greater',
    )
    hooks = dict(
        checkpoint={**checkpoint, **more.get('checkpoint', {})},
        resume_state=dict(type='ResumeStateHook'),
        logger=dict(type='LoggerHook', interval=1),
    )
    hooks.update(more.get('hooks', {}))
    # mmengine takes None for hooks that are its own.
    hooks = {k: hook for k, hook in hooks.items() if hook is not None or k == 'checkpoint'}
    evaluated = dict(
        dataset=dict(type='DrawingDataset', length=6, test_mode=True),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=2,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
    )
    evaluation = dict(
        test_dataloader=evaluated, test_cfg=dict(), test_evaluator=dict(type='MeanOutput')
    )
    if more.get('validated', True):
        evaluation.update(
            val_dataloader=evaluated, val_cfg=dict(), val_evaluator=dict(type='MeanOutput')
        )
    schedule = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=8),
        dict(type='CosineAnnealingLR', by_epoch=by_epoch, T_max=total),
    ]
    return Runner(
        model=dict(type='DrawingModel'),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(
            by_epoch=by_epoch,
            val_interval=1 if by_epoch else 4,
            **{'max_epochs' if by_epoch else 'max_iters': total},
            **more.get('loop', {}),
        ),
        **evaluation,
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=0.01),
            accumulative_counts=more.get('accumulate', 1),
        ),
        param_scheduler=schedule,
        default_hooks=hooks,
        custom_hooks=[dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1)]
        + ([dict(type='StopAt', iteration=stop, event=event)] if stop is not None else []),
        launcher=launcher,
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
            )
            if launcher != 'none'
            else None
        ),
        resume=resume,
        load_from=load_from and str(load_from),
        randomness=dict(seed=more.get('seed')),
        log_level='WARNING',
        experiment_name=f'toy_{next(_COUNT)}',
        default_scope='mmdet',
    )


def end_workers():
    """End data workers: left to the garbage collector, each takes 5 seconds."""
    for one in gc.get_objects():
        if type(one) is _MultiProcessingDataLoaderIter:
            one._shutdown_workers()


def trace(runner):
    """What must be equal to the bit: weights, averages, optimizer, schedules and losses.

    Args:
        runner (Runner): After training.

    Returns:
        dict: Tensors and lists, by name.
    """
    hub = runner.message_hub
    found = {f'weights.{k}': v for k, v in runner.model.state_dict().items()}
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
    found.update({f'average.{k}': v for k, v in ema.ema_model.state_dict().items()})
    for number, state in runner.optim_wrapper.state_dict()['state'].items():
        found.update({f'optimizer.{number}.{k}': v for k, v in state.items()})
    found['lr'] = runner.optim_wrapper.get_lr()['lr']
    for key, buffer in hub.log_scalars.items():
        if 'time' not in key and 'memory' not in key:
            found[f'log.{key}'] = torch.from_numpy(buffer.data[0])
    found['best'] = (hub.get_info('best_score'), Path(hub.get_info('best_ckpt')).name)
    return found


def differences(one, other):
    """list[str]: the names under which two traces are not equal to the bit."""
    same = lambda a, b: torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b  # noqa: E731
    names = one.keys() | other.keys()
    return sorted(k for k in names if not (k in one and k in other and same(one[k], other[k])))
