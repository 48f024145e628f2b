"""Errors of input end a tool in one line; others keep their traceback."""

from __future__ import annotations

import pickle

import pytest
import torch
from coco_files import make_coco
from mmdet.registry import DATASETS
from torch.utils.data import DataLoader

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.errors import InputError, one_line_errors


def own(path):
    load_checkpoint(path / 'none.pth')


def own_in_a_registry(path):
    make_coco(path / 'a.json')
    data = dict(ann_file=str(path / 'a.json'), data_prefix=dict(img=''), pipeline=[])
    DATASETS.build(dict(type='OrderedCocoDataset', metainfo=dict(classes=('zebra',)), **data))


def own_in_a_worker(path):
    class Data(torch.utils.data.Dataset):
        __len__ = lambda self: 1  # noqa: E731
        __getitem__ = lambda self, index: load_checkpoint(path / 'none.pth')  # noqa: E731

    list(DataLoader(Data(), num_workers=1))


def of_a_tool(path):
    raise InputError('--size: got 0,\nexpected 1 or more')


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (own, 'none.pth: cannot be loaded'),
        (own_in_a_registry, "a.json: the annotation file has the categories 'circle'"),
        (own_in_a_worker, 'none.pth: cannot be loaded'),
        (of_a_tool, '--size: got 0, expected 1 or more'),
    ],
)
def test_input_ends_in_one_line(tmp_path, capsys, call, words):
    with pytest.raises(SystemExit) as end, one_line_errors():
        call(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith('error: ')
    assert words in line
    assert 'class `' not in line


@pytest.mark.parametrize('error', [ValueError('x'), KeyError('x'), RuntimeError('x')])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), one_line_errors():
        raise error


def test_it_travels_between_processes():
    assert str(pickle.loads(pickle.dumps(InputError('x: y')))) == 'x: y'
