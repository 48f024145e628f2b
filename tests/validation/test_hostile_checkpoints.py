"""Hostile files against every place that loads a checkpoint: none runs, each is named."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from hostile_files import CASES
from mmengine.config import Config

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
