"""A loss or gradient that is not finite stops training, and can be looked at again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from torch import nn

from polynl_mmdet.engine import NonFiniteStopHook, load_checkpoint
from polynl_mmdet.engine.non_finite_record import read_record
from polynl_mmdet.engine.plain_batch import from_plain, image_names, to_plain
from polynl_mmdet.engine.replay import replay
from polynl_mmdet.errors import InputError


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


def train(work_dir, poisoned=(7,), value=float('nan'), wrapper=None, launcher='none', **model):
    runner = Runner(
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
            non_finite=dict(type='NonFiniteStopHook'),
            checkpoint=dict(type='AtomicCheckpointHook', interval=1, by_epoch=False),
            resume_state=dict(type='ResumeStateHook'),
        ),
        randomness=dict(seed=0),
        experiment_name=work_dir.name,
        default_scope='mmdet',
        launcher=launcher,
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True
            )
            if launcher != 'none'
            else None,
            model=dict(type='TwoLosses', **model),
            default_scope='mmdet',
            custom_imports=dict(imports=[]),
        ),
    )
    runner.train()
    return runner


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
    assert f'polynl_mmdet.engine.replay {tmp_path}/non_finite/iter_3' in message
    assert not (tmp_path / 'iter_3.pth').exists()


def test_what_was_written_is_of_before_the_step(tmp_path):
    with pytest.raises(InputError):
        train(tmp_path)
    last = load_checkpoint(str(tmp_path / 'iter_2.pth'))
    record = read_record(tmp_path / 'non_finite' / 'iter_3')
    assert set(record['state_dict']) == set(last['state_dict'])
    for name, value in last['state_dict'].items():
        assert torch.equal(record['state_dict'][name], value), name
    assert record['about']['images'] == [f'images/{i}.jpg' for i in (6, 7, 8)]
    sample = record['batch']['data_samples'][1]
    assert isinstance(sample, DetDataSample)
    assert sample.img_path == 'images/7.jpg'
    assert torch.isnan(record['batch']['inputs'][1]).all()
    expected = last['resume_state']['processes'][0]['generators']
    assert torch.equal(record['generators']['torch'], expected['torch'])


def test_it_can_be_repeated(tmp_path):
    with pytest.raises(InputError):
        train(tmp_path)
    folder = tmp_path / 'non_finite' / 'iter_3'
    losses, gradients = replay(folder)
    recorded = read_record(folder)['about']
    assert losses['loss_norm'] == recorded['losses']['loss_norm']
    assert np.isnan(losses['loss_seen'])
    assert gradients == recorded['gradients'] == ['conv.weight']


@pytest.mark.parametrize('value', [float('inf'), -float('inf'), 3e38])
def test_infinite_and_overflowing(tmp_path, value):
    with pytest.raises(InputError, match='iteration 3'):
        train(tmp_path, value=value)


def test_a_gradient_alone_and_clipping(tmp_path):
    wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01), clip_grad=dict(max_norm=1.0)
    )
    with pytest.raises(InputError) as error:
        train(tmp_path, gradient_only=True, wrapper=wrapper)
    assert 'iteration 1 ' in str(error.value)
    assert 'losses that' not in str(error.value)
    assert 'gradients of 1 parameters that are not finite: other.weight' in str(error.value)


def test_while_gradients_accumulate(tmp_path):
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01), accumulative_counts=4)
    with pytest.raises(InputError, match=r'iteration 2 .*images/3.jpg'):
        train(tmp_path, poisoned=(4,), wrapper=wrapper)


def test_finite_training_is_left_alone(tmp_path):
    assert train(tmp_path, poisoned=()).iter == 8
    assert not (tmp_path / 'non_finite').exists()


class Scaler:
    """What the hook needs of a GradScaler."""


def test_mixed_precision_may_overflow_some_times():
    hook = NonFiniteStopHook(max_skipped=3)
    weight = nn.Parameter(torch.ones(2))

    class Wrapper:
        optimizer = torch.optim.SGD([weight], lr=0.1)
        loss_scaler = Scaler()

    stopped = []
    hook._stop = lambda runner: stopped.append(hook._skipped)
    steps = []
    for value in (np.inf, np.nan, 1.0, np.inf, np.inf, np.inf):
        weight.grad = torch.tensor([1.0, value])
        hook._step(None, Wrapper(), lambda: steps.append(1))
        if stopped:
            break
    assert stopped == [3]
    assert len(steps) == 6


def test_bad_arguments():
    with pytest.raises(InputError, match='max_skipped'):
        NonFiniteStopHook(max_skipped=0)


def test_plain_batches_come_back(tmp_path):
    sample = DetDataSample(metainfo=dict(img_path='a/b.jpg', scale_factor=(0.5, 0.5), flip=None))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.rand(2, 4)),
        labels=torch.tensor([1, 2]),
        masks=BitmapMasks(np.ones((2, 5, 6), np.uint8), 5, 6),
        polygons=PolygonMasks([[np.arange(6.0)], [np.arange(8.0)]], 5, 6),
    )
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, 5, 6))
    batch = dict(
        inputs=[torch.zeros(3, 5, 6, dtype=torch.uint8)],
        data_samples=[sample],
        extra=(np.float32(0.5), np.arange(3), object),
    )
    torch.save(to_plain(batch), tmp_path / 'x')
    back = from_plain(torch.load(tmp_path / 'x', weights_only=True))
    assert image_names(back) == ['a/b.jpg']
    again = back['data_samples'][0]
    assert again.scale_factor == (0.5, 0.5)
    assert torch.equal(again.gt_instances.bboxes.tensor, sample.gt_instances.bboxes.tensor)
    assert (again.gt_instances.masks.masks == 1).all()
    assert again.gt_instances.polygons.masks[1][0].tolist() == list(range(8))
    assert torch.equal(again.gt_sem_seg.sem_seg, sample.gt_sem_seg.sem_seg)
    assert back['inputs'][0].dtype == torch.uint8
    assert back['extra'][0] == 0.5
    assert back['extra'][1].tolist() == [0, 1, 2]
    assert isinstance(back['extra'][2], str)


def test_the_command_names_what_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'polynl_mmdet.engine.replay', str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f'error: {tmp_path}/iteration.pth: no')
