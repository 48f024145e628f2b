"""Each hook bears every use of a runner: alone, with the others, and without training."""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import CheckpointHook
from toy_training import differences, make_runner, trace, train

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


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('workers', [0, 1])
def test_trained_twice(tmp_path, hooks, by_epoch, workers):
    """A second training goes on from the first, and ends as one that was as long as both."""
    options = dict(hooks=hooks, seed=5, by_epoch=by_epoch, workers=workers)
    short, long = (2, 3) if by_epoch else (7, 17)
    runner = make_runner(tmp_path / 'twice', total=long, **options)
    loop = runner.build_train_loop(runner._train_loop)
    runner._train_loop = loop
    key = '_max_epochs' if by_epoch else '_max_iters'
    setattr(loop, key, short)
    runner.train()
    assert (runner.epoch if by_epoch else runner.iter) == short
    runner.train()
    assert (runner.epoch if by_epoch else runner.iter) == short
    setattr(loop, key, long)
    runner.train()
    assert (runner.epoch if by_epoch else runner.iter) == long


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
