"""Each hook bears every use of a runner: alone, with the others, and without training."""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook
from toy_training import differences, end_workers, make_runner, trace, train

BEST = dict(save_best='acc', rule='greater')
# What stands in `default_hooks`; None: nothing.
OFF = dict(checkpoint=None, resume_state=None)
HOOKS = {
    'checkpoint': dict(OFF, checkpoint=dict(type='AtomicCheckpointHook', **BEST)),
    'checkpoint, two metrics': dict(
        OFF,
        checkpoint=dict(
            type='AtomicCheckpointHook', save_best=['acc', 'spread'], rule=['greater', 'less']
        ),
    ),
    'resume state': dict(OFF, resume_state=dict(type='ResumeStateHook')),
    'resume state with mmengine checkpoints': dict(
        # mmengine's own with save_best cannot validate without having trained.
        checkpoint=dict(type='CheckpointHook')
    ),
    'non finite': dict(OFF, non_finite=dict(type='NonFiniteStopHook')),
    'bad images': dict(OFF, bad_images=dict(type='BadImageHook')),
    'all': dict(non_finite=dict(type='NonFiniteStopHook'), bad_images=dict(type='BadImageHook')),
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    # mmengine sleeps for 2 seconds between passes.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)


@pytest.fixture(params=HOOKS)
def hooks(request):
    return HOOKS[request.param]


def only_validate(folder, hooks):
    runner = make_runner(folder, hooks=hooks)
    assert 'acc' in runner.val()
    assert 'acc' in runner.val()


def only_test(folder, hooks):
    runner = make_runner(folder, hooks=hooks)
    assert 'acc' in runner.test()
    assert 'acc' in runner.val()


def without_validation(folder, hooks):
    checkpoint = hooks.get('checkpoint') or {}
    assert make_runner(folder, hooks=hooks, validated=False, total=1).train() is not None
    assert (folder / 'epoch_1.pth').exists() == ('checkpoint' not in hooks or bool(checkpoint))


def train_then_evaluate(folder, hooks):
    runner = make_runner(folder, hooks=hooks, total=1)
    runner.train()
    assert 'acc' in runner.val()
    runner.test()


def built_and_not_run(folder, hooks):
    make_runner(folder, hooks=hooks)
    assert make_runner(folder, hooks=hooks, total=1).train() is not None


@pytest.mark.parametrize(
    'use',
    [only_validate, only_test, without_validation, train_then_evaluate, built_and_not_run],
    ids=lambda use: use.__name__,
)
def test_use(tmp_path, hooks, use):
    use(tmp_path, hooks)


def train_in_parts(folder, by_epoch, parts, **options):
    """Train as far as each part says, by one ``Runner.train()`` each; list the images read."""
    runner = make_runner(folder, by_epoch=by_epoch, total=parts[0], **options)
    seen = []

    class Note(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch):
            seen.append(data_batch['number'].tolist())

    runner.register_hook(Note())
    for part in parts:
        # mmengine has no other way to train for longer.
        setattr(runner.train_loop, '_max_epochs' if by_epoch else '_max_iters', part)
        runner.train()
        assert (runner.epoch if by_epoch else runner.iter) == part
    end_workers()
    return seen


@pytest.mark.parametrize('by_epoch', [True, False])
def test_trained_twice(tmp_path, hooks, by_epoch):
    train_in_parts(tmp_path, by_epoch, (1, 1, 2) if by_epoch else (3, 3, 7), hooks=hooks)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
    ('by_epoch', 'sampler', 'parts'),
    [
        (True, 'DefaultSampler', (2, 2, 3)),
        (False, 'InfiniteSampler', (7, 7, 17)),
        (False, 'DefaultSampler', (8, 8, 17)),
    ],
)
def test_training_on_reads_on(tmp_path, by_epoch, sampler, parts, workers):
    options = dict(sampler=sampler, workers=workers, seed=5)
    once = train_in_parts(tmp_path / 'once', by_epoch, parts[-1:], **options)
    assert train_in_parts(tmp_path / 'parts', by_epoch, parts, **options) == once


def test_resumed_with_mmengine_checkpoints(tmp_path):
    options = dict(seed=5, checkpoint=dict(type='CheckpointHook'), workers=1)
    whole = trace(train(tmp_path / 'whole', **options))
    train(tmp_path / 'parts', stop=9, **options)
    resumed = train(tmp_path / 'parts', resume=True, **options)
    assert any(type(hook) is CheckpointHook for hook in resumed.hooks)
    assert differences(whole, trace(resumed)) == []


def test_runners_that_take_turns(tmp_path):
    """Each runner in a process keeps to its own data, optimizer and folder."""
    hooks = HOOKS['all']
    runners = [make_runner(tmp_path / name, hooks=hooks, seed=5, total=1) for name in 'ab']
    for runner in runners:
        torch.manual_seed(0)
        runner.train()
        runner.val()
    for runner, name in zip(runners, 'ab'):
        assert (tmp_path / name / 'last_checkpoint').read_text() == f'{tmp_path}/{name}/epoch_1.pth'
        assert runner.iter == 6
        assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 6
