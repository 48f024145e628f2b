"""Errors of input end a tool in one line; others keep their traceback."""

from __future__ import annotations

import pytest
import torch
from coco_files import make_coco
from mmdet.registry import DATASETS
from torch.utils.data import DataLoader

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.errors import one_line_errors


class Data(torch.utils.data.Dataset):
    """A data set whose only sample is a missing file."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        load_checkpoint('none.pth')


def build_dataset(path):
    make_coco(path)
    data = dict(ann_file=str(path), data_prefix=dict(img=''), pipeline=[])
    DATASETS.build(dict(type='OrderedCocoDataset', metainfo=dict(classes=('zebra',)), **data))


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda path: load_checkpoint('none.pth'), 'none.pth: cannot be loaded'),
        (build_dataset, "a.json: the annotation file has the categories 'circle'"),
        (lambda path: list(DataLoader(Data(), num_workers=1)), 'none.pth: cannot be loaded'),
    ],
    ids=['call', 'in a registry', 'in a worker'],
)
def test_input_ends_in_one_line(tmp_path, capsys, call, words):
    with pytest.raises(SystemExit) as end, one_line_errors():
        call(tmp_path / 'a.json')
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith('error: ')
    assert words in line
    assert 'class `' not in line


@pytest.mark.parametrize('error', [ValueError('x'), KeyError('x'), RuntimeError('x')])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), one_line_errors():
        raise error
