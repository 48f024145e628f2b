"""Checkpoints: mmengine's own load, nothing in a file is run, and weights that do not fit stop."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from polynl_mmdet.engine import check_loaded, force_weights_only, load_checkpoint
from polynl_mmdet.ops.compat import SAFE_GLOBALS

SAFE_LOADING = pytest.mark.skipif(
    not SAFE_GLOBALS, reason="torch 2.6: mmengine's checkpoints with weights_only=True"
)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def mmengine_checkpoint():
    return {
        'meta': {'epoch': 1, 'seed': np.int64(7), 'dataset_meta': {'classes': ('a', 'b')}},
        'message_hub': {
            'log_scalars': {'train/loss': HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])},
            'runtime_info': {'best': np.float64(0.5), 'loss': np.arange(3, dtype=np.float32)},
        },
        'state_dict': {'weight': torch.randn(2, 3)},
    }


def test_mmengines_checkpoint_loads_whole(tmp_path):
    saved, path = mmengine_checkpoint(), str(tmp_path / 'epoch_1.pth')
    torch.save(saved, path)
    for load in (load_checkpoint, CheckpointLoader.load_checkpoint):
        loaded = load(path)
        buffer = loaded['message_hub']['log_scalars']['train/loss']
        assert type(buffer) is HistoryBuffer
        assert (buffer.statistics('mean'), buffer.statistics('max')) == (3.0, 6.0)
        assert loaded['meta'] == saved['meta']
        np.testing.assert_array_equal(loaded['message_hub']['runtime_info']['loss'], [0, 1, 2])
        torch.save(loaded, path)  # As a plain mmengine checkpoint.
        assert b'_StoredHistoryBuffer' not in (tmp_path / 'epoch_1.pth').read_bytes()


@SAFE_LOADING
def test_it_loads_where_the_host_lists_the_originals(tmp_path):
    torch.save(mmengine_checkpoint(), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([HistoryBuffer, getattr, np.dtype]):
        torch.load(tmp_path / 'a.pth', weights_only=True)
    assert torch.load(tmp_path / 'a.pth', weights_only=True)['meta']['epoch'] == 1


@SAFE_LOADING
@pytest.mark.parametrize(
    'call',
    [
        (os.system, 'touch MARKER'),
        (exec, 'open("MARKER", "w")'),
        (getattr, HistoryBuffer, '__init__'),
        (getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'),
        (setattr, HistoryBuffer, 'mean', None),
        (pickle.loads, pickle.dumps(Call(os.system, 'touch MARKER'))),
    ],
    ids=lambda call: call[0].__name__,
)
def test_an_untrusted_checkpoint_runs_nothing(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '')
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD')
    torch.save({**mmengine_checkpoint(), 'extra': Call(*call)}, 'bad.pth')
    with pytest.raises(ValueError, match=r'bad\.pth: cannot be loaded'):
        load_checkpoint('bad.pth')
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    force_weights_only()  # The user's own switch counts.
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    force_weights_only()
    with pytest.raises(pickle.UnpicklingError):
        torch.load('bad.pth')
    assert not os.path.exists('MARKER')
    assert HistoryBuffer.mean is not None


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', b'<html></html>', None])
def test_a_damaged_or_missing_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'a\.pth: cannot be loaded'):
        load_checkpoint(tmp_path / 'a.pth')


def test_files_are_replaced_whole_and_removed_after_the_next(tmp_path, monkeypatch):
    def backend():
        return get_file_backend(backend_args=dict(backend='atomic'))

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    first, second = tmp_path / 'x/epoch_1.pth', tmp_path / 'x/epoch_2.pth'
    backend().put(b'first', first)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match='No space'):
            backend().put(b'second', first)
    assert first.read_bytes() == b'first'
    backend().remove(first)
    assert first.exists()
    backend().put(b'2', second)
    assert not first.exists()


def mask_rcnn(repo_root, name='r50_fpn', classes=80):
    cfg = Config.fromfile(repo_root / f'configs/mask_rcnn/mask-rcnn_{name}_1x_coco.py').model
    cfg.backbone.init_cfg = None
    cfg.roi_head.bbox_head.num_classes = cfg.roi_head.mask_head.num_classes = classes
    with torch.device('meta'):
        return MODELS.build(cfg)


@pytest.mark.parametrize('name', ['r50-polynl-site-c4_fpn', 'r50-nl-site-c4_fpn'])
def test_a_coco_detector_fits_other_classes_and_a_new_layer(repo_root, name):
    weights = mask_rcnn(repo_root).state_dict()
    check_loaded(mask_rcnn(repo_root, name, 3), {f'module.{k}': w for k, w in weights.items()})


def test_weights_that_a_detector_renames_count(repo_root):
    """A neck inside LevelContext, and student and teacher of semi-supervised training."""
    cfg = Config.fromfile(repo_root / 'configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    weights = mask_rcnn(repo_root).state_dict()
    neck = dict(type='LevelContext', layer=dict(type='PolyNL'), levels=[2], neck=cfg.neck)
    neck_weights = {k: w for k, w in weights.items() if 'neck' in k}
    check_loaded(nn.ModuleDict(dict(neck=MODELS.build(neck))), neck_weights)
    cfg.backbone.init_cfg = None
    with torch.device('meta'):
        semi = MODELS.build(dict(type='SemiBaseDetector', detector=cfg, semi_train_cfg={}))
    check_loaded(semi, weights)


def test_weights_that_fit_nothing_stop(repo_root):
    model = mask_rcnn(repo_root)
    other = {key: torch.zeros(7) for key in model.state_dict()}
    for weights, message in (
        (dict.fromkeys(('layer1.0.conv1.weight', 'fc.weight')), r'fits 0 of the \d+ .*fc\.weight'),
        (other, 'of another shape'),
        ({'model': other, 'epoch': 3}, 'fits 0'),
        ({}, 'fits 0'),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            check_loaded(model, weights, 'r50.pth')
        assert str(caught.value).startswith('r50.pth: ')
        assert 'convert_retinaface' not in str(caught.value)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_an_unconverted_retinaface_names_the_tool(prefix):
    weights = {f'{prefix}body.stage1.0.0.weight': torch.zeros(8, 3, 3, 3)}
    with pytest.raises(ValueError, match=r'tools/convert_retinaface\.py'):
        check_loaded(nn.Linear(2, 2), weights)
