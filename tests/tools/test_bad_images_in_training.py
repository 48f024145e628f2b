"""An image that cannot be used, in training with a data worker: it stops or it is counted."""

from __future__ import annotations

import pytest
from test_train_and_test import CONFIG, options

from demo.toy_coco import make_toy_coco


@pytest.fixture
def toy(tmp_path):
    make_toy_coco(tmp_path / 'toyä', train=6, val=1, seed=3, size=96)
    image = tmp_path / 'toyä' / 'train' / '000002.jpg'
    image.write_bytes(image.read_bytes()[:-60])
    return tmp_path / 'toyä'


def train(run_tool, toy, policy, *more):
    workers = 'train_dataloader.num_workers=1', f'train_dataloader.dataset.bad_images={policy}'
    return run_tool(
        'train.py', CONFIG, '--work-dir', toy.parent / 'work', *options(toy, 1, *workers, *more)
    )


def test_stop_names_image_and_annotation_in_one_line(run_tool, toy):
    done = train(run_tool, toy, 'stop')
    assert done.returncode == 2, done.stdout[-3000:]
    assert done.stdout.strip().splitlines()[-1] == (
        f'error: {toy}/annotations/instances_train.json: {toy}/train/000002.jpg: a JPEG that is '
        'cut off; accepted: a whole image'
    )


def test_skip_counts_in_the_last_lines(run_tool, toy):
    done = train(run_tool, toy, 'skip')
    assert done.returncode == 0, done.stdout[-3000:]
    last = done.stdout.strip().splitlines()[-2:]
    assert last[0].endswith('1 images were left out of training')
    assert last[1].endswith(f'left out: {toy}/train/000002.jpg: a JPEG that is cut off')
