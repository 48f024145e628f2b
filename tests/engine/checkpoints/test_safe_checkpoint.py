"""mmengine's checkpoints, and all that torch calls safe, load; nothing in any file is run."""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import os
import pickle
import subprocess
import sys
import threading
import zipfile

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as mmengine_load
from mmengine.utils.dl_utils import load_url
from torch import nn

import polynl_mmdet
from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.errors import InputError

FORK = hasattr(mmengine_checkpoint, '_safe_torch_load')  # Falls back to running code.
WAYS = ('ours', 'mmengine', 'guarded', 'guarded model', 'guarded URL')
GUARDED = tuple(way for way in WAYS if way != 'mmengine')


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Settings:
    """A class of a user's own."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Settings and other.value == self.value


def mmengine_checkpoint_content():
    buffer = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    return {
        'meta': {'epoch': 1, 'seed': np.int64(7), 'dataset_meta': {'classes': ('a', 'b')}},
        'message_hub': {
            'log_scalars': {'train/loss': buffer},
            'runtime_info': {'best': np.float64(0.5), 'loss': np.arange(3, dtype=np.float32)},
        },
        'state_dict': {'weight': torch.randn(2, 3), 'bias': torch.randn(2)},
    }


@pytest.fixture
def file(tmp_path, monkeypatch):
    """str: a path that torch.hub takes for the cached download, too."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    return str(folder / 'cached.pth')


@pytest.fixture
def load(file, monkeypatch):
    """Callable: loads the file in one of WAYS. The guard is off before and as it was afterwards."""

    def run(way):
        if way == 'ours':
            return load_checkpoint(file)
        if way == 'mmengine':
            return CheckpointLoader.load_checkpoint(file)
        polynl_mmdet.guard_checkpoints()
        if way == 'guarded model':
            return mmengine_load(nn.Linear(3, 2), file, map_location='cpu')
        url = 'https://example.invalid/cached.pth'
        return CheckpointLoader.load_checkpoint(url if way == 'guarded URL' else file)

    loader = CheckpointLoader.load_checkpoint.__func__
    plain = getattr(loader, '__wrapped__', loader)
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', classmethod(plain))
    monkeypatch.setattr(mmengine_checkpoint, 'load_url', load_url)
    return run


@pytest.mark.parametrize('way', WAYS)
def test_a_mmengine_checkpoint_loads_whole(file, load, way):
    saved = mmengine_checkpoint_content()
    torch.save(saved, file)
    loaded = load(way)
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert type(buffer) is HistoryBuffer
    assert buffer.statistics('mean') == 3.0
    assert buffer.statistics('max') == 6.0
    assert loaded['meta'] == saved['meta']
    np.testing.assert_array_equal(
        loaded['message_hub']['runtime_info']['loss'], saved['message_hub']['runtime_info']['loss']
    )
    assert torch.equal(loaded['state_dict']['weight'], saved['state_dict']['weight'])


@pytest.mark.parametrize('listed', [[HistoryBuffer], [getattr], [HistoryBuffer, getattr, np.dtype]])
def test_it_loads_where_the_host_lists_the_originals(file, listed):
    """As users do by hand, and the onedl forks for the time of a load."""
    torch.save(mmengine_checkpoint_content(), file)
    with torch.serialization.safe_globals(listed):
        torch.load(file, weights_only=True)
    loaded = torch.load(file, weights_only=True)
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 3.0


def test_a_loaded_checkpoint_is_saved_as_a_plain_mmengine_one(file):
    torch.save(mmengine_checkpoint_content(), file)
    torch.save(load_checkpoint(file), file)
    with open(file, 'rb') as stream:
        assert b'_StoredHistoryBuffer' not in stream.read()
    load_checkpoint(file)


def accepted_by_torch():
    """dict: value and classes to list, of what ``torch.load(weights_only=True)`` accepts."""
    today = datetime.datetime(2026, 1, 2, 3, 4)
    sparse = torch.eye(3).to_sparse()
    return {
        'class of the user': (Settings(3), [Settings]),
        'argparse.Namespace': (argparse.Namespace(lr=0.1), [argparse.Namespace]),
        'datetime': (today, [datetime.datetime]),
        'defaultdict': (collections.defaultdict(list), [collections.defaultdict, list]),
        'sparse COO': (sparse, []),
        'sparse CSR': (torch.eye(3).to_sparse_csr(), []),
        'quantised': (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), []),
        'meta': (torch.empty(2, 3, device='meta'), []),
        'expanded': (torch.ones(1).expand(1000, 1000), []),
        'parameter': (nn.Parameter(torch.ones(2)), []),
        'bfloat16': (torch.ones(2, dtype=torch.bfloat16), []),
        'containers': ([None, True, -(2**70), 'text', b'bytes', {1, 2}, (1, ()), 1 + 2j], []),
        'Counter': (collections.Counter('aab'), []),
        'bytearray': (bytearray(b'x'), []),
    }


@pytest.mark.parametrize('way', [way for way in WAYS if way != 'guarded model'])
@pytest.mark.parametrize('kind', accepted_by_torch())
def test_what_torch_accepts_loads(file, load, kind, way):
    value, listed = accepted_by_torch()[kind]
    torch.save({'state_dict': {}, 'extra': value}, file)
    with torch.serialization.safe_globals(listed):
        expected = torch.load(file, weights_only=True)['extra']
        found = load(way)['extra']
    assert type(found) is type(expected) is type(value)
    if not isinstance(value, torch.Tensor):
        assert found == value
    else:
        assert (found.layout, found.dtype, found.device, found.shape) == (
            value.layout, value.dtype, value.device, value.shape
        )  # fmt: skip
        if not value.is_meta:
            assert torch.equal(found.to_dense(), value.to_dense())


@pytest.mark.parametrize('way', ['ours', 'guarded'])
def test_a_checkpoint_that_was_packed_again_loads(file, load, way):
    torch.save(mmengine_checkpoint_content(), file)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    assert load(way)['meta']['epoch'] == 1


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
        'unlisted class': Settings(1),
    }


@pytest.mark.parametrize('way', GUARDED)
@pytest.mark.parametrize('case', sorted(hostile('m')))
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_a_hostile_checkpoint_is_refused_and_nothing_runs(file, load, tmp_path, case, way, zipped):
    marker = tmp_path / 'marker'
    content = {**mmengine_checkpoint_content(), 'extra': hostile(marker)[case]}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as caught:
        load(way)
    assert 'refused, it wants' in str(caught.value)
    assert 'cached.pth' in str(caught.value)
    assert not marker.exists()
    assert HistoryBuffer.mean is not None


@pytest.mark.skipif(FORK, reason='the forks run what they cannot load safely')
def test_without_the_guard_mmengine_refuses_in_its_own_words(file, load, tmp_path):
    torch.save({'x': Call(os.system, f'touch {tmp_path}/marker')}, file)
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        load('mmengine')
    assert not (tmp_path / 'marker').exists()


def test_the_error_names_all_that_the_file_wanted(file):
    torch.save({'x': Call(os.system, 'true'), 'y': Call(exec, '')}, file)
    with pytest.raises(InputError, match=rf'builtins\.exec, {os.system.__module__}\.system'):
        load_checkpoint(file)
    torch.save({'x': Call(getattr, HistoryBuffer, 'update')}, file)
    with pytest.raises(InputError, match=r"getattr\(HistoryBuffer, 'update'\)"):
        load_checkpoint(file)


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_a_bare_pickle_is_refused(file, tmp_path, protocol):
    marker = tmp_path / 'marker'
    with open(file, 'wb') as stream:
        pickle.dump({'x': Call(os.system, f'touch {marker}')}, stream, protocol=protocol)
    with pytest.raises(InputError, match=r'cached\.pth: refused'):
        load_checkpoint(file)
    assert not marker.exists()


def test_a_zip_that_grows_is_refused_before_it_is_unpacked(file):
    torch.save({'x': torch.zeros(1 << 23)}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match=r'refused, 335\d+ bytes unpacked from a file of \d+'):
        load_checkpoint(file)


def test_statistics_of_a_file_do_not_enter_the_process(file):
    buffer = HistoryBuffer([1.0], [1])
    buffer._statistics_methods = {'mean': torch.Size}
    before = dict(HistoryBuffer._statistics_methods)
    torch.save({'x': buffer}, file)
    load_checkpoint(file)
    assert HistoryBuffer._statistics_methods == before


@pytest.mark.parametrize('kept', [0, 10, 0.5, 0.99])
def test_a_cut_off_file_is_named(file, load, kept):
    torch.save(mmengine_checkpoint_content(), file)
    size = os.path.getsize(file)
    with open(file, 'r+b') as stream:
        stream.truncate(int(kept * size) if isinstance(kept, float) else kept)
    with pytest.raises(InputError, match=r'cached\.pth'):
        load('guarded')


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match='no such file'):
        load_checkpoint(str(tmp_path / 'none.pth'))


@pytest.mark.parametrize('way', GUARDED)
def test_a_trusted_file_loads_as_pickles_do(file, load, tmp_path, monkeypatch, way):
    marker = tmp_path / 'marker'
    hostile = Call(os.system, f'touch {marker}')
    torch.save({'state_dict': {}, 'x': hostile, 'y': Settings(3)}, file)
    monkeypatch.setenv('POLYNL_TRUST_CHECKPOINTS', '1')
    assert load(way)['y'] == Settings(3)
    assert marker.exists()
    monkeypatch.setenv('POLYNL_TRUST_CHECKPOINTS', '0')
    with pytest.raises(InputError, match='POLYNL_TRUST_CHECKPOINTS=1'):
        load(way)


@CheckpointLoader.register_scheme(prefixes='falls-back://', force=True)
def load_from_falls_back(filename, map_location):
    """As the onedl forks: what cannot be loaded safely is loaded anyhow."""
    path = filename.partition('://')[2]
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception:
        return torch.load(path, map_location=map_location, weights_only=False)


def test_no_scheme_gets_round_the_guard(file, load, tmp_path, monkeypatch):
    torch.save(mmengine_checkpoint_content(), file)
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    load('guarded')
    assert CheckpointLoader.load_checkpoint(f'falls-back://{file}')['meta']['epoch'] == 1
    torch.save({'x': Call(os.system, f'touch {tmp_path}/marker')}, file)
    with pytest.raises(InputError, match='refused'):
        CheckpointLoader.load_checkpoint(f'falls-back://{file}')
    assert not (tmp_path / 'marker').exists()
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


@pytest.mark.parametrize('way', GUARDED)
def test_another_thread_loads_its_own_pickles_meanwhile(file, load, tmp_path, way):
    torch.save(mmengine_checkpoint_content(), file)
    own = tmp_path / 'own.pt'
    torch.save(Settings(3), own)
    failed, ended = [], threading.Event()

    def other():
        while not ended.is_set():
            try:
                torch.load(own, weights_only=False)
            except Exception as error:
                failed.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(50):
            load(way)
    finally:
        ended.set()
        thread.join()
    assert not failed


def test_the_guard_is_put_on_once(load, file):
    torch.save({'state_dict': {}}, file)
    load('guarded')
    guarded = CheckpointLoader.load_checkpoint.__func__
    polynl_mmdet.guard_checkpoints()
    assert CheckpointLoader.load_checkpoint.__func__ is guarded


def test_a_download_is_kept_in_torch_hubs_cache(file, load, monkeypatch):
    downloads = []

    def download(url, path, progress):
        downloads.append(url)
        torch.save({'state_dict': {}}, path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    assert load('guarded URL') == load('guarded URL') == {'state_dict': {}}
    assert downloads == ['https://example.invalid/cached.pth']
    assert os.path.exists(file)


def test_importing_the_package_is_enough_for_mmengine(file):
    torch.save(mmengine_checkpoint_content(), file)
    code = (
        'import polynl_mmdet; from mmengine.runner import CheckpointLoader as C; '
        f'C.load_checkpoint({file!r}); print("loaded")'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert 'loaded' in done.stdout, done.stderr
