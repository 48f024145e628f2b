"""Hostile files against every place that loads a checkpoint: none runs, each is named."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import CASES, content
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.engine.checkpoints.content import check_content
from polynl_mmdet.errors import InputError
from validation.hostile_checkpoints import ENTRIES, MEMORY, attempt, prepare

# `python validation/hostile_checkpoints.py` gives all files to all places.
BOMBS = (
    'zip bomb',
    'storage larger than its record',
    'storage of a petabyte, older format',
    'bytearray of a length',
    'tensor of a length',
    'array of a length',
    'array scalar of a length',
)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Path: the folder of data that the places look into."""
    folder = tmp_path_factory.mktemp('data')
    prepare(folder)
    return folder


@pytest.mark.parametrize('case', CASES)
def test_every_file_is_refused(case, prepared):
    for entry in ('load_checkpoint', "mmengine's CheckpointLoader"):
        assert attempt(case, entry, prepared)[0] in ('refused', 'damaged')


@pytest.mark.parametrize('entry', ENTRIES)
def test_every_place_refuses(entry, prepared):
    assert attempt('os.system', entry, prepared)[0] == 'refused'


@pytest.mark.parametrize('case', ['code in meta.config', 'best checkpoint that is something else'])
def test_what_mmengine_would_do_with_the_content_is_refused(case, prepared):
    assert attempt(case, 'tools/train.py --resume FILE', prepared)[0] == 'refused'


def test_files_that_grow_take_no_memory(prepared):
    for entry in ('load_checkpoint', 'download'):
        base = attempt('empty file', entry, prepared)[1]
        for case in BOMBS:
            result, peak = attempt(case, entry, prepared)
            assert result in ('refused', 'damaged'), (case, entry)
            assert peak - base < MEMORY, (case, entry)


def test_the_files_do_run_where_nothing_refuses_them(tmp_path):
    marker = tmp_path / 'marker'
    pickle.loads(CASES['bare pickle, protocol 2'](marker))
    assert marker.exists()
    marker.unlink()
    saved = io.BytesIO(CASES['code in meta.config'](marker))
    Config.fromstring(torch.load(saved, weights_only=True)['meta']['config'], '.py')
    assert marker.exists()
    marker.unlink()
    torch.load(io.BytesIO(CASES['__setstate__'](marker)), weights_only=False)
    assert marker.exists()


@CheckpointLoader.register_scheme(prefixes='falls-back://', force=True)
def falls_back(filename, map_location):
    """A loader as the onedl forks have it: what cannot be loaded safely is loaded anyhow."""
    path = filename.partition('://')[2]
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception:
        return torch.load(path, map_location=map_location, weights_only=False)


_own_load = torch.load


@CheckpointLoader.register_scheme(prefixes='own-load://', force=True)
def own_load(filename, map_location):
    """A loader that got hold of torch.load before it was guarded."""
    return _own_load(filename.partition('://')[2], map_location, weights_only=False)


@pytest.mark.parametrize('scheme', ['falls-back', 'own-load'])
@pytest.mark.parametrize('case', ['os.system', '__setstate__', 'getattr chain, older format'])
def test_no_loader_gets_round_weights_only(tmp_path, monkeypatch, scheme, case):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    (tmp_path / 'hostile.pth').write_bytes(CASES[case](tmp_path / 'marker'))
    with pytest.raises(InputError, match='refused'):
        CheckpointLoader.load_checkpoint(f'{scheme}://{tmp_path}/hostile.pth')
    assert not (tmp_path / 'marker').exists()
    assert torch.load is _own_load
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'


def test_mmengine_loads_nothing_but_through_torch_load():
    import mmengine.runner.checkpoint as module

    source = Path(module.__file__).read_text(encoding='utf-8')
    assert 'pickle.load' not in source
    assert 'from torch import load' not in source


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_what_checkpoints_hold_is_loaded(tmp_path, zipped):
    shared = torch.arange(12.0)
    saved = dict(
        content(),
        views=[shared[:4], shared[4:].view(2, 4).t(), shared],
        expanded=torch.ones(1).expand(1000, 1000),
        empty=torch.empty(0, 3),
        scalars=[torch.tensor(1.5), torch.tensor(3), torch.tensor(True)],
        kinds=[torch.zeros(2, dtype=d) for d in (torch.float16, torch.bfloat16, torch.uint8)],
        parameter=torch.nn.Parameter(torch.ones(2)),
        arrays=[np.arange(6).reshape(2, 3), np.float64(0.5), np.int64(3), np.array('text')],
        generator=torch.get_rng_state(),
        numpy_state=np.random.RandomState(0).get_state(),
        buffer=HistoryBuffer([1.0, 2.0], [1, 1]),
        plain=[
            None,
            True,
            -(2**70),
            1e300,
            'text',
            b'bytes',
            {1, 2},
            (1, (2, ())),
            bytearray(b'x'),
        ],
    )
    torch.save(saved, tmp_path / 'good.pth', _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(str(tmp_path / 'good.pth'))
    assert loaded['plain'] == saved['plain']
    assert all(torch.equal(a, b) for a, b in zip(loaded['views'], saved['views']))
    assert loaded['views'][0].untyped_storage().data_ptr() == (
        loaded['views'][2].untyped_storage().data_ptr()
    )
    assert loaded['expanded'].shape == (1000, 1000)
    np.testing.assert_array_equal(loaded['arrays'][0], saved['arrays'][0])
    assert loaded['kinds'][1].dtype == torch.bfloat16
    assert loaded['buffer'].mean() == 1.5


def test_texts_of_real_configs_are_plain(repo_root):
    paths = [*repo_root.glob('configs/*/*.py')]
    assert len(paths) > 10
    for path in paths[::8]:
        saved = content()
        text = Config.fromfile(str(path)).pretty_text
        saved['meta']['cfg'] = saved['message_hub']['runtime_info']['cfg'] = text
        check_content('x.pth', saved)


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('import os', 'Import in line 1'),
        ('a = 1\nb = [print(x) for x in a]', 'ListComp in line 2|call of print'),
        ('a = (lambda: 1)', 'Lambda'),
        ('def f(): pass', 'FunctionDef'),
        ('a = dict(b=open("x"))', 'a call of open in line 1'),
        ('a = 9**9**9', 'BinOp'),
        ('_base_ = ["x.py"]', 'a _base_'),
        ('a = f"{b}"', 'JoinedStr'),
        ('a = b[0]', 'Subscript'),
        ('a = "{{$HOME:x}}"', 'a variable'),
        ('a = {{$X:print(1)}}', 'a variable'),
        ('# a comment\rprint(1)', 'a call of print in line 2'),
        (b'a = 1', 'a bytes'),
    ],
)
def test_code_in_a_config_text_is_named(text, says):
    with pytest.raises(InputError, match=says) as caught:
        check_content('x.pth', {'meta': {'cfg': text}})
    assert str(caught.value).startswith('x.pth: meta.cfg: refused')


def test_text_that_cannot_be_executed_is_accepted():
    check_content('x.pth', {'meta': {'cfg': "a = dict(type=<class 'int'>)"}})


def test_the_best_checkpoint_of_a_run_is_accepted():
    runtime = {
        'best_ckpt': 'work dirs/ä/best_coco_segm_mAP_epoch_3.pth',
        'best_ckpt_face': None,
        'keep_ckpt_ids': [1, 2],
    }
    check_content('x.pth', {'message_hub': {'runtime_info': runtime}})
    for bad in ('/home/x', 'best_a.pth/..', '../best', 'best_x.pth/', 7):
        with pytest.raises(InputError, match='training would delete'):
            check_content('x.pth', {'message_hub': {'runtime_info': {'best_ckpt': bad}}})
