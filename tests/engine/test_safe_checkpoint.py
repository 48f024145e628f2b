"""Checkpoints: mmengine's own load whole, and nothing in any file is run."""

from __future__ import annotations

import builtins
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as mmengine_load
from torch import nn

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.errors import InputError


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def mmengine_checkpoint():
    buffer = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    return {
        'meta': {'epoch': 1, 'seed': np.int64(7), 'dataset_meta': {'classes': ('a', 'b')}},
        'message_hub': {
            'log_scalars': {'train/loss': buffer},
            'runtime_info': {'best': np.float64(0.5), 'loss': np.arange(3, dtype=np.float32)},
        },
        'state_dict': {'weight': torch.randn(2, 3), 'bias': torch.randn(2)},
    }


def loaders(path):
    """Every way from a file to a model: name -> callable."""
    return {
        'CheckpointLoader': lambda: CheckpointLoader.load_checkpoint(path),
        'load_checkpoint': lambda: mmengine_load(nn.Linear(3, 2), path, map_location='cpu'),
        'ours': lambda: load_checkpoint(path),
        'http': lambda: CheckpointLoader.load_checkpoint('https://example.invalid/cached.pth'),
    }


@pytest.fixture
def file(tmp_path, monkeypatch):
    """str: a path that torch.hub takes for the cached download, too."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    return str(folder / 'cached.pth')


@pytest.mark.parametrize('way', ['CheckpointLoader', 'load_checkpoint', 'ours', 'http'])
def test_a_mmengine_checkpoint_loads_whole(file, way):
    saved = mmengine_checkpoint()
    torch.save(saved, file)
    loaded = loaders(file)[way]()
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert type(buffer) is HistoryBuffer
    assert buffer.statistics('mean') == 3.0
    assert buffer.statistics('max') == 6.0
    assert loaded['meta'] == saved['meta']
    np.testing.assert_array_equal(
        loaded['message_hub']['runtime_info']['loss'], saved['message_hub']['runtime_info']['loss']
    )
    assert torch.equal(loaded['state_dict']['weight'], saved['state_dict']['weight'])


def test_a_checkpoint_of_a_loaded_checkpoint_is_a_plain_mmengine_one(file):
    torch.save(mmengine_checkpoint(), file)
    torch.save(load_checkpoint(file), file)
    with open(file, 'rb') as stream:
        assert b'_StoredHistoryBuffer' not in stream.read()
    load_checkpoint(file)


def hostile(marker):
    command = f'touch {marker}'
    code = f'open({str(marker)!r}, "w")'
    return {
        'system': Call(os.system, command),
        'exec': Call(exec, code),
        'eval': Call(eval, code),
        'import': Call(__import__, 'this'),
        'popen': Call(subprocess.Popen, ['touch', str(marker)]),
        'getattr of a class': Call(getattr, HistoryBuffer, '__init__'),
        'getattr of a module': Call(getattr, Call(__import__, 'os'), 'system'),
        'nested getattr': Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'),
        'setattr': Call(setattr, HistoryBuffer, 'mean', None),
        'loads': Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        'torch.load': Call(torch.load, str(marker)),
        'builtins': builtins.compile,
    }


@pytest.mark.parametrize('way', ['CheckpointLoader', 'load_checkpoint', 'ours', 'http'])
@pytest.mark.parametrize('case', sorted(hostile('m')))
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_a_hostile_checkpoint_is_refused_and_nothing_runs(file, tmp_path, case, way, zipped):
    marker = tmp_path / 'marker'
    content = {**mmengine_checkpoint(), 'extra': hostile(marker)[case]}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as caught:
        loaders(file)[way]()
    assert 'refused, it wants' in str(caught.value)
    assert 'cached.pth' in str(caught.value)
    assert not marker.exists()
    assert HistoryBuffer.mean is not None


def test_the_error_names_what_the_file_wanted(file):
    torch.save({'x': Call(os.system, 'true')}, file)
    with pytest.raises(InputError, match=rf'{os.system.__module__}\.system'):
        load_checkpoint(file)
    torch.save({'x': Call(getattr, HistoryBuffer, 'update')}, file)
    with pytest.raises(InputError, match=r"getattr\(HistoryBuffer, 'update'\)"):
        load_checkpoint(file)


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_a_bare_pickle_is_refused_by_name(file, tmp_path, protocol):
    marker = tmp_path / 'marker'
    with open(file, 'wb') as stream:
        pickle.dump({'x': Call(os.system, f'touch {marker}')}, stream, protocol=protocol)
    with pytest.raises(InputError, match=rf'it wants {os.system.__module__}\.system'):
        load_checkpoint(file)
    assert not marker.exists()


def test_statistics_of_a_file_do_not_enter_the_process(file):
    buffer = HistoryBuffer([1.0], [1])
    buffer._statistics_methods = {'mean': torch.Size}
    before = dict(HistoryBuffer._statistics_methods)
    torch.save({'x': buffer}, file)
    load_checkpoint(file)
    assert HistoryBuffer._statistics_methods == before


@pytest.mark.parametrize('kept', [0, 10, 0.5, 0.99])
def test_a_cut_off_file_is_named(file, kept):
    torch.save(mmengine_checkpoint(), file)
    size = os.path.getsize(file)
    with open(file, 'r+b') as stream:
        stream.truncate(int(kept * size) if isinstance(kept, float) else kept)
    with pytest.raises(InputError, match=r'cached\.pth'):
        CheckpointLoader.load_checkpoint(file)


def test_the_environment_is_left_as_it_was(file, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    torch.save({'x': Call(os.system, 'true')}, file)
    with pytest.raises(InputError):
        CheckpointLoader.load_checkpoint(file)
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match='no such file'):
        load_checkpoint(str(tmp_path / 'none.pth'))


def test_importing_the_package_is_enough(file):
    torch.save(mmengine_checkpoint(), file)
    code = (
        'import polynl_mmdet; from mmengine.runner import CheckpointLoader as C; '
        f'C.load_checkpoint({file!r}); print("loaded")'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert 'loaded' in done.stdout, done.stderr
