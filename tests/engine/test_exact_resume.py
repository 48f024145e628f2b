"""A run that was stopped and resumed ends, to the bit, as one that was not."""

from __future__ import annotations

import inspect
import os

import pytest
import torch
from mmengine.runner import IterBasedTrainLoop
from toy_training import differences, trace, train

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.ops import cpu_library, product_library

ASPECT = dict(type='AspectRatioBatchSampler')
SETTINGS = {
    'epochs': dict(),
    'epochs, workers': dict(workers=2),
    'epochs, persistent workers': dict(workers=2, persistent=True),
    'epochs, aspect ratios, saved by iteration': dict(
        save_by_epoch=False, batch_sampler=ASPECT, interval=4
    ),
    'epochs, saved by iteration, workers': dict(save_by_epoch=False, interval=4, workers=2),
    'iterations': dict(by_epoch=False),
    'iterations, workers': dict(by_epoch=False, workers=2, persistent=True),
    'iterations, aspect ratios, workers': dict(by_epoch=False, workers=2, batch_sampler=ASPECT),
    'iterations, finite sampler': dict(by_epoch=False, sampler='DefaultSampler'),
    'iterations, finite sampler, workers': dict(
        by_epoch=False, sampler='DefaultSampler', workers=1
    ),
    'accumulated gradients': dict(accumulate=4, save_by_epoch=False, interval=3),
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    # mmengine sleeps for 2 seconds between passes.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """Callable: gives the trace of a setting's uninterrupted run."""
    traces = {}

    def get(setting):
        if setting not in traces:
            folder = tmp_path_factory.mktemp('whole')
            traces[setting] = trace(train(folder, seed=5, **SETTINGS[setting]))
        return traces[setting]

    return get


@pytest.mark.parametrize(
    ('setting', 'stop', 'event'),
    [(setting, 9, 'after_train_iter') for setting in SETTINGS]
    + [
        (setting, stop, event)
        for setting in ('epochs', 'iterations', 'epochs, aspect ratios, saved by iteration')
        for stop, event in ((6, 'before_val'), (12, 'after_val'), (18, 'after_val'))
    ],
)
def test_resumed_equals_uninterrupted(tmp_path, uninterrupted, setting, stop, event):
    options = SETTINGS[setting]
    whole = uninterrupted(setting)
    train(tmp_path / 'parts', seed=5, stop=stop, event=event, **options)
    # Another seed, as a run without one would have: the checkpoint's counts.
    resumed = trace(train(tmp_path / 'parts', seed=None, resume=True, **options))
    assert differences(whole, resumed) == []


@pytest.mark.skipif(
    'fast_forward_on_resume' not in inspect.signature(IterBasedTrainLoop).parameters,
    reason="the onedl fork's option",
)
@pytest.mark.parametrize('setting', [s for s in SETTINGS if s.startswith('iterations')])
def test_a_loop_that_passes_over_nothing_is_resumed_as_exactly(tmp_path, uninterrupted, setting):
    options = dict(SETTINGS[setting], loop=dict(fast_forward_on_resume=True))
    train(tmp_path / 'parts', seed=5, stop=9, **options)
    resumed = trace(train(tmp_path / 'parts', seed=None, resume=True, **options))
    assert differences(uninterrupted(setting), resumed) == []


def test_workers_do_not_change_the_result(tmp_path):
    results = [
        trace(train(tmp_path / str(workers), seed=3, workers=workers)) for workers in (0, 1, 3)
    ]
    assert differences(results[0], results[1]) == []
    assert differences(results[0], results[2]) == []


def test_without_the_hook_it_is_not_equal(tmp_path):
    """What the equality above is worth."""
    options = dict(seed=5, hooks=dict(resume_state=None))
    whole = trace(train(tmp_path / 'whole', **options))
    train(tmp_path / 'parts', stop=9, **options)
    resumed = trace(train(tmp_path / 'parts', resume=True, **options))
    assert 'weights.head.weight' in differences(whole, resumed)


def test_the_library_of_products_goes_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_library, '_requested', 'onednn')
    train(tmp_path, seed=5, stop=9)
    monkeypatch.setattr(cpu_library, '_requested', 'torch')
    train(tmp_path, seed=None, resume=True)
    assert product_library() == 'onednn'


def test_several_interruptions(tmp_path):
    options = dict(by_epoch=False, workers=2, seed=1, total=17, interval=3)
    whole = trace(train(tmp_path / 'whole', **options))
    train(tmp_path / 'parts', stop=4, **options)
    for stop in (5, 8, 12, 13):
        train(tmp_path / 'parts', resume=True, stop=stop, **options)
    assert differences(whole, trace(train(tmp_path / 'parts', resume=True, **options))) == []


def test_a_last_validation_is_made_good(tmp_path, uninterrupted):
    whole = uninterrupted('epochs')
    train(tmp_path / 'parts', seed=5, stop=18, event='before_val')
    resumed = trace(train(tmp_path / 'parts', seed=5, resume=True))
    assert len(whole['log.val/acc']) == 3
    assert differences(whole, resumed) == []


def test_a_checkpoint_without_the_state_says_what_is_not_exact(tmp_path):
    train(tmp_path, seed=5, stop=9, hooks=dict(resume_state=None))
    assert train(tmp_path, seed=5, resume=True).iter == 18
    text = max(tmp_path.glob('*/*.log'), key=os.path.getmtime).read_text()
    assert 'not exactly: it has no' in text
    assert 'generators begin anew' in text


def test_another_number_of_images_is_told(tmp_path):
    train(tmp_path, seed=5, stop=9)
    assert train(tmp_path, seed=5, resume=True, length=30).iter == 6 + 2 * 8
    text = max(tmp_path.glob('*/*.log'), key=os.path.getmtime).read_text()
    assert "trained with {'images': 22, 'batch_size': 4}" in text


def test_loading_weights_is_not_resuming(tmp_path):
    train(tmp_path / 'one', seed=5)
    fresh = train(tmp_path / 'two', seed=5, load_from=tmp_path / 'one' / 'epoch_3.pth', total=1)
    assert fresh.iter == 6


def test_the_state_is_plain(tmp_path):
    train(tmp_path, seed=5, total=1)
    state = load_checkpoint(str(tmp_path / 'epoch_1.pth'))['resume_state']
    torch.save(state, tmp_path / 'state')
    (process,) = torch.load(tmp_path / 'state', weights_only=True)['processes']
    assert process['data']['images'] == 22
