"""Checkpoints survive kills, full disks and cut-off files."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from toy_training import differences, trace, train

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.engine.checkpoints.atomic_write import (
    PARTIAL,
    remove_partial_files,
    write_atomically,
)
from polynl_mmdet.engine.checkpoints.last_checkpoint import (
    checkpoint_defect,
    last_whole_checkpoint,
)
from polynl_mmdet.engine.hooks.checkpoint_hook import RemoveLater
from polynl_mmdet.errors import InputError


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Path: the folder of a finished run of three epochs."""
    folder = tmp_path_factory.mktemp('run')
    train(folder, seed=5)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """Path: a copy of it."""
    shutil.copytree(finished, tmp_path / 'run')
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'run' / 'epoch_3.pth'))
    return tmp_path / 'run'


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def records(path):
    """list[int]: a place inside each record of an archive."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.file_size]
    places = []
    for info in infos:
        name, extra = struct.unpack('<HH', data[info.header_offset + 26 : info.header_offset + 30])
        places.append(info.header_offset + 30 + name + extra + info.file_size // 2)
    return places


def log_of(folder):
    return sorted(folder.glob('*/*.log'), key=os.path.getmtime)[-1].read_text()


class TestWriting:
    def test_content_and_replacement(self, tmp_path):
        path = tmp_path / 'new folder' / 'file'
        for content in (b'one', b'second'):
            write_atomically(path, content)
            assert path.read_bytes() == content
        assert [p.name for p in path.parent.iterdir()] == ['file']

    @pytest.mark.parametrize('call', ['os.fsync', 'os.replace', 'builtins.open'])
    def test_a_failure_leaves_the_old_file(self, tmp_path, monkeypatch, call):
        path = tmp_path / 'file'
        write_atomically(path, b'old')

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(call, full)
            with pytest.raises(InputError) as error:
                write_atomically(path, b'x' * 2_000_000)
        assert str(path) in str(error.value)
        assert 'No space left' in str(error.value)
        assert '2.0 MB wanted' in str(error.value)
        assert 'MB free' in str(error.value)
        assert path.read_bytes() == b'old'
        assert [p.name for p in tmp_path.iterdir()] == ['file']

    def test_leftovers_are_removed_and_named(self, tmp_path):
        (tmp_path / f'a.pth{PARTIAL}').write_bytes(b'x')
        (tmp_path / 'a.pth').write_bytes(b'x')
        assert remove_partial_files(tmp_path) == [f'a.pth{PARTIAL}']
        assert [p.name for p in tmp_path.iterdir()] == ['a.pth']
        assert remove_partial_files(tmp_path / 'none') == []


class TestDefect:
    def test_a_whole_one(self, finished):
        assert checkpoint_defect(finished / 'epoch_3.pth') is None

    def test_every_cut_is_seen(self, run):
        path = run / 'epoch_3.pth'
        data = path.read_bytes()
        for length in [*range(1, len(data), len(data) // 40), len(data) - 1]:
            path.write_bytes(data[:length])
            assert checkpoint_defect(path), length

    def test_a_flipped_bit_is_seen_in_every_record(self, run):
        path = run / 'epoch_3.pth'
        data = path.read_bytes()
        places = records(path)
        assert len(places) > 40
        for place in places:
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            assert 'damaged' in checkpoint_defect(path), place

    @pytest.mark.parametrize(
        ('content', 'words'),
        [
            (b'', 'empty'),
            (b'\0' * 5000, ''),
            (os.urandom(5000), ''),
            (b'PK\x03\x04' + b'\0' * 5000, 'cut off'),
        ],
    )
    def test_garbage(self, tmp_path, content, words):
        (tmp_path / 'x.pth').write_bytes(content)
        assert words in checkpoint_defect(tmp_path / 'x.pth')

    def test_others(self, tmp_path):
        assert checkpoint_defect(tmp_path / 'none.pth') == 'missing'
        torch.save([1], tmp_path / 'list.pth')
        assert 'a list' in checkpoint_defect(tmp_path / 'list.pth')
        torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
        assert 'no meta, message_hub' in checkpoint_defect(tmp_path / 'weights.pth')

    def test_hostile(self, tmp_path):
        class Call:
            def __reduce__(self):
                return os.system, (f'touch {tmp_path}/marker',)

        torch.save(dict(x=Call()), tmp_path / 'x.pth')
        assert 'refused' in checkpoint_defect(tmp_path / 'x.pth')
        assert not (tmp_path / 'marker').exists()


class TestChoice:
    def choose(self, run):
        return last_whole_checkpoint(run, run, 'epoch_{}.pth')

    def test_the_noted_one(self, run):
        choice = self.choose(run)
        assert (choice.path.name, choice.broken) == ('epoch_3.pth', {})

    def test_cut_off_ones_are_passed_over(self, run):
        cut(run / 'epoch_3.pth')
        (run / 'epoch_2.pth').write_bytes(b'')
        choice = self.choose(run)
        assert choice.path.name == 'epoch_1.pth'
        assert [path.name for path in choice.broken] == ['epoch_3.pth', 'epoch_2.pth']

    def test_noted_but_missing(self, run):
        (run / 'epoch_3.pth').unlink()
        choice = self.choose(run)
        assert choice.path.name == 'epoch_2.pth'
        assert list(choice.broken.values()) == ['missing']

    @pytest.mark.parametrize('pointer', [None, b'', b'\0' * 30])
    def test_without_a_note(self, run, pointer):
        (run / 'last_checkpoint').unlink()
        if pointer is not None:
            (run / 'last_checkpoint').write_bytes(pointer)
        assert self.choose(run).path.name == 'epoch_3.pth'

    def test_written_but_not_noted_yet(self, run):
        (run / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
        os.utime(run / 'epoch_3.pth', (time.time() + 9, time.time() + 9))
        assert self.choose(run).path.name == 'epoch_3.pth'

    def test_of_an_earlier_run_in_the_folder(self, run):
        (run / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
        os.utime(run / 'epoch_3.pth', (9, 9))
        assert self.choose(run).path.name == 'epoch_2.pth'

    def test_numbers_not_letters(self, run):
        shutil.copy(run / 'epoch_3.pth', run / 'epoch_10.pth')
        (run / 'last_checkpoint').unlink()
        assert self.choose(run).path.name == 'epoch_10.pth'

    def test_a_moved_run(self, run, tmp_path):
        (run / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
        os.utime(run / 'epoch_3.pth', (9, 9))
        assert self.choose(run).path.name == 'epoch_2.pth'

    def test_nothing(self, tmp_path):
        choice = self.choose(tmp_path / 'none')
        assert (choice.path, choice.broken) == (None, {})


class TestResume:
    def test_from_the_one_before_a_broken_one(self, run, finished):
        whole = load_checkpoint(str(finished / 'epoch_3.pth'))['state_dict']
        cut(run / 'epoch_3.pth')
        runner = train(run, seed=5, resume=True)
        log = log_of(run)
        assert 'epoch_3.pth: cut off' in log
        assert runner._load_from == str(run / 'epoch_2.pth')
        again = load_checkpoint(str(run / 'epoch_3.pth'))['state_dict']
        assert all(torch.equal(again[key], whole[key]) for key in whole)
        assert runner.iter == 18

    def test_all_broken(self, run):
        for path in run.glob('epoch_*.pth'):
            cut(path)
        with pytest.raises(InputError, match=r'no whole checkpoint: epoch_3\.pth is cut off'):
            train(run, seed=5, resume=True)

    @pytest.mark.parametrize('pointer', [None, ''])
    def test_none_at_all(self, tmp_path, pointer):
        if pointer is not None:
            (tmp_path / 'last_checkpoint').write_text(pointer)
        runner = train(tmp_path, seed=5, resume=True, total=1)
        assert runner.iter == 6
        assert 'starts from the beginning' in log_of(tmp_path)

    def test_a_broken_one_asked_for(self, run):
        cut(run / 'epoch_2.pth')
        with pytest.raises(InputError) as error:
            train(run, seed=5, resume=True, load_from=run / 'epoch_2.pth')
        assert f'{run}/epoch_2.pth: cut off' in str(error.value)
        assert f'the last whole one is {run}/epoch_3.pth' in str(error.value)

    def test_leftovers_of_a_killed_run(self, run):
        (run / f'epoch_4.pth{PARTIAL}').write_bytes(b'half')
        train(run, seed=5, resume=True, total=4)
        assert not list(run.glob(f'*{PARTIAL}'))
        assert f'epoch_4.pth{PARTIAL}: half-written' in log_of(run)


class TestKeeping:
    @pytest.mark.parametrize('by_epoch', [True, False])
    def test_as_many_as_asked_for(self, tmp_path, by_epoch):
        runner = train(tmp_path, seed=5, by_epoch=by_epoch, checkpoint=dict(max_keep_ckpts=2))
        names = sorted(path.name for path in tmp_path.glob('*.pth'))
        best = Path(runner.message_hub.get_info('best_ckpt')).name
        last = ['epoch_2.pth', 'epoch_3.pth'] if by_epoch else ['iter_16.pth', 'iter_17.pth']
        assert names == sorted([best, *last])
        assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / last[1])

    @pytest.mark.parametrize('fails_at', range(1, 5))
    def test_a_full_disk_never_takes_the_last_whole_one(self, tmp_path, monkeypatch, fails_at):
        writes = []

        def fsync(descriptor):
            writes.append(descriptor)
            if len(writes) >= 2 * fails_at + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        options = dict(seed=5, checkpoint=dict(max_keep_ckpts=1))
        whole = trace(train(tmp_path / 'whole', **options))
        with monkeypatch.context() as patch:
            patch.setattr('os.fsync', fsync)
            with pytest.raises(InputError, match='No space left'):
                train(tmp_path / 'full', **options)
        assert not list((tmp_path / 'full').glob(f'*{PARTIAL}'))
        files = list((tmp_path / 'full').glob('epoch_*.pth'))
        assert files
        assert [checkpoint_defect(path) for path in files] == [None] * len(files)
        resumed = trace(train(tmp_path / 'full', resume=True, **options))
        assert differences(whole, resumed) == []
        assert len(list((tmp_path / 'full').glob('epoch_*.pth'))) == 1
        assert len(list((tmp_path / 'full').glob('best_*.pth'))) == 1

    def test_what_a_kill_left_to_remove(self, tmp_path, monkeypatch):
        options = dict(seed=5, checkpoint=dict(max_keep_ckpts=1))
        with monkeypatch.context() as patch:
            patch.setattr(RemoveLater, 'remove_now', lambda self: None)
            train(tmp_path, **options)
        assert len(list(tmp_path.glob('epoch_*.pth'))) == 3
        train(tmp_path, resume=True, **{**options, 'total': 4})
        assert [path.name for path in tmp_path.glob('epoch_*.pth')] == ['epoch_4.pth']

    def test_a_checkpoint_cannot_name_other_files_to_remove(self, tmp_path):
        options = dict(seed=5, total=1)
        train(tmp_path / 'run', **options)
        (tmp_path / 'mine').write_text('kept')
        checkpoint = load_checkpoint(str(tmp_path / 'run' / 'epoch_1.pth'))
        hub = checkpoint['message_hub']['runtime_info']
        assert hub['superseded_ckpts'] == []
        hub['superseded_ckpts'] = ['../mine', str(tmp_path / 'mine'), '..', '', '.', 'vis_data']
        torch.save(checkpoint, tmp_path / 'run' / 'epoch_1.pth')
        before = sorted(path for path in tmp_path.rglob('*') if path.suffix != '.log')
        train(tmp_path / 'run', resume=True, **options)
        assert set(before) <= set(tmp_path.rglob('*'))

    def test_published_keys(self, tmp_path):
        train(tmp_path, seed=5, total=1, checkpoint=dict(published_keys=['meta', 'state_dict']))
        (published,) = tmp_path.glob('epoch_1-*.pth')
        assert set(load_checkpoint(str(published))) == {'meta', 'state_dict'}

    def test_another_folder(self, tmp_path):
        options = dict(seed=5, checkpoint=dict(out_dir=str(tmp_path / 'out')))
        train(tmp_path / 'run', **options, stop=9)
        folder = tmp_path / 'out' / 'run'
        assert (tmp_path / 'run' / 'last_checkpoint').read_text() == str(folder / 'epoch_1.pth')
        cut(folder / 'epoch_1.pth')
        with pytest.raises(InputError, match='no whole checkpoint'):
            train(tmp_path / 'run', resume=True, **options)


def test_a_file_that_grows_too_large(tmp_path, finished):
    """The operating system itself cuts the write short."""
    limit = (finished / 'epoch_1.pth').stat().st_size // 2
    # A fork of this process could not train: its autograd may have threads.
    context = multiprocessing.get_context('forkserver')
    found = context.SimpleQueue()
    process = context.Process(target=train_with_limit, args=(tmp_path, limit, found))
    process.start()
    process.join()
    assert process.exitcode == 0  # or nothing comes, and get() waits for ever
    expected = f'InputError: {tmp_path}/epoch_1.pth: could not be written (File too large)'
    assert expected in found.get()
    assert not list(tmp_path.glob('*.pth*'))


def train_with_limit(folder, limit, found):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(folder, seed=5)
    except Exception as error:
        found.put(f'{type(error).__name__}: {error}')
    else:
        found.put('no error')
