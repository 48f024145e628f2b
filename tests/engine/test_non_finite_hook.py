"""A loss or gradient that is not finite stops training before it reaches a weight."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from polynl_mmdet.engine import NonFiniteStopHook, load_checkpoint
from polynl_mmdet.errors import InputError

_COUNT = itertools.count()


@DATASETS.register_module(force=True)
class NumberedImages(torch.utils.data.Dataset):
    """Images of one number; those in ``poisoned`` have another."""

    def __init__(self, poisoned=(), value=float('nan')):
        self.poisoned, self.value = poisoned, value

    def __len__(self):
        return 12

    def __getitem__(self, index):
        x = torch.full((3, 4, 4), self.value if index in self.poisoned else index / 12)
        sample = DetDataSample(metainfo=dict(img_path=f'images/{index}.jpg'))
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[0.0, 0, 1, 1]]))
        return dict(inputs=x, data_samples=sample)


@MODELS.register_module(force=True)
class TwoLosses(BaseModel):
    """A norm, dropout and two losses, one of which sees the images' values."""

    def __init__(self, gradient_only=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.Linear(1, 1)
        self.gradient_only = gradient_only

    def forward(self, inputs, data_samples, mode='loss'):
        """The losses."""
        x = torch.stack(inputs)
        y = nn.functional.dropout(self.norm(self.conv(torch.nan_to_num(x, nan=0.0))), 0.3)
        seen = x.mean() * self.conv.weight.sum()
        if self.gradient_only:
            # sqrt has an infinite slope at 0, where its value is fine.
            seen = (torch.nan_to_num(x, nan=0.0).sum() * 0 + self.other.weight.sum() * 0).sqrt() * (
                torch.isnan(x).any()
            ) + self.other.bias.sum()
        return dict(loss_norm=y.square().mean(), loss_seen=seen, acc=x.mean().detach())


def train(work_dir, **options):
    runner = make_runner(work_dir, **options)
    runner.train()
    return runner


def make_runner(
    work_dir,
    poisoned=(7,),
    value=float('nan'),
    wrapper=None,
    launcher='none',
    resume=False,
    max_skipped=25,
    **model,
):
    return Runner(
        model=dict(type='TwoLosses', **model),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=dict(type='NumberedImages', poisoned=poisoned, value=value),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=3,
            num_workers=0,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=wrapper
        or dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(
            non_finite=dict(type='NonFiniteStopHook', max_skipped=max_skipped),
            checkpoint=dict(type='AtomicCheckpointHook', interval=1, by_epoch=False),
            resume_state=dict(type='ResumeStateHook'),
        ),
        randomness=dict(seed=0),
        resume=resume,
        experiment_name=f'{work_dir.name}_{next(_COUNT)}',
        default_scope='mmdet',
        launcher=launcher,
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True
            )
            if launcher != 'none'
            else None,
        ),
    )


SGD = dict(type='SGD', lr=0.01)


def test_a_loss(tmp_path):
    with pytest.raises(InputError) as error:
        train(tmp_path)
    message = str(error.value)
    assert message.startswith('iteration 3 (epoch 1): ')
    assert '\n' not in message
    assert 'loss_seen = nan' in message
    assert 'loss_norm = ' not in message
    assert 'gradients of 1 parameters that are not finite: conv.weight' in message
    assert 'images/6.jpg, images/7.jpg, images/8.jpg' in message
    assert '--resume' in message
    assert not (tmp_path / 'iter_3.pth').exists()


def test_no_step_is_made(tmp_path):
    runner = make_runner(tmp_path)
    with pytest.raises(InputError):
        runner.train()
    last = load_checkpoint(str(tmp_path / 'iter_2.pth'))['state_dict']
    for name, parameter in runner.model.named_parameters():
        assert torch.equal(parameter, last[name]), name


def test_resuming_repeats_it(tmp_path):
    messages = []
    for resume in (False, True):
        with pytest.raises(InputError) as error:
            train(tmp_path, resume=resume)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert train(tmp_path, resume=True, poisoned=()).iter == 8


def test_training_again_in_the_same_process(tmp_path):
    runner = make_runner(tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match=r'^iteration .* images/7.jpg'):
            runner.train()


@pytest.mark.parametrize('value', [float('inf'), -float('inf'), 3e38])
def test_infinite_and_overflowing(tmp_path, value):
    with pytest.raises(InputError, match='iteration 3'):
        train(tmp_path, value=value)


def test_a_gradient_alone_and_clipping(tmp_path):
    wrapper = dict(type='OptimWrapper', optimizer=SGD, clip_grad=dict(max_norm=1.0))
    with pytest.raises(InputError) as error:
        train(tmp_path, gradient_only=True, wrapper=wrapper)
    assert 'iteration 1 ' in str(error.value)
    assert 'losses that' not in str(error.value)
    assert 'gradients of 1 parameters that are not finite: other.weight' in str(error.value)


def test_while_gradients_accumulate(tmp_path):
    wrapper = dict(type='OptimWrapper', optimizer=SGD, accumulative_counts=4)
    with pytest.raises(InputError, match=r'iteration 2 .*images/3.jpg'):
        train(tmp_path, poisoned=(4,), wrapper=wrapper)


def test_finite_training_is_left_alone(tmp_path):
    runner = train(tmp_path, poisoned=())
    assert runner.iter == 8
    # After training the hook looks at nothing.
    runner.optim_wrapper.backward(runner.model.other.weight.sum() * float('nan'))


def test_a_copy_of_the_model_does_not_copy_the_run(tmp_path):
    runner = make_runner(tmp_path, poisoned=())
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, NonFiniteStopHook))
    hook.before_train(runner)
    memo = {}
    copy.deepcopy(runner.model, memo)
    assert id(runner) not in memo
    assert id(hook) not in memo


@OPTIM_WRAPPERS.register_module(force=True)
class ScaledWrapper(OptimWrapper):
    """Mixed precision with a loss scale of its own, where there is no GPU."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = scale

    def backward(self, loss, **kwargs):
        """Scale the loss."""
        super().backward(loss * self.loss_scaler, **kwargs)

    def step(self, **kwargs):
        """Skip the step where a gradient overflowed, as torch's GradScaler does."""
        gradients = [p.grad for group in self.param_groups for p in group['params']]
        if all(g is None or torch.isfinite(g).all() for g in gradients):
            for g in gradients:
                if g is not None:
                    g /= self.loss_scaler
            super().step(**kwargs)


def test_large_scaled_gradients_are_not_infinite(tmp_path):
    # The sum of their squares overflows.
    wrapper = dict(type='ScaledWrapper', optimizer=SGD, scale=2.0**80)
    runner = train(tmp_path, poisoned=(), wrapper=wrapper, max_skipped=1)
    assert runner.iter == 8


@pytest.mark.parametrize('accumulated', [1, 2])
def test_mixed_precision_may_overflow_some_times(tmp_path, accumulated):
    def train_with(poisoned, max_skipped):
        wrapper = dict(type='ScaledWrapper', optimizer=SGD, scale=2.0)
        wrapper['accumulative_counts'] = accumulated
        return train(tmp_path, poisoned=poisoned, wrapper=wrapper, max_skipped=max_skipped)

    # 4 iterations of 3 images an epoch, 2 epochs: the last batch of each window is at fault.
    last = (9,) if accumulated == 2 else (3, 9)
    assert train_with(last, max_skipped=3).iter == 8
    every = (3, 9) if accumulated == 2 else (0, 3, 6, 9)
    with pytest.raises(InputError, match='no step in 3 iterations of mixed precision') as error:
        train_with(every, max_skipped=3)
    assert str(error.value).startswith(f'iteration {3 * accumulated} ')


def test_bad_arguments():
    with pytest.raises(InputError, match='max_skipped'):
        NonFiniteStopHook(max_skipped=0)
