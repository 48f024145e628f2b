"""make: what it lists, and what `make clean` leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')


def make(folder, *args, **env):
    return subprocess.run(
        ['make', '--no-print-directory', *args],
        cwd=folder,
        # Not the variables of the make that runs the tests.
        env={**os.environ, 'STACK': 'official', 'MAKEFLAGS': '', **env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_make_alone_lists_every_target():
    listed = make(ROOT)
    for target in ('install', 'demo', 'demo-face', 'test', 'test-fast', 'lint', 'clean', 'help'):
        assert f'make {target} ' in listed


def test_clean_removes_only_what_make_made(tmp_path):
    shutil.copy(ROOT / 'Makefile', tmp_path)
    made = (
        '.venv-onedl/.made-by-make',
        '.venv-onedl/bin/python',
        'work_dirs/demo/epoch_4.pth',
        'work_dirs/demo-face/last_checkpoint',
        'data/toy_coco/train/0.jpg',
        'data/toy_wider/label.txt',
        'build/lib/a.py',
        'polynl_mmdet/.mim/configs/a.py',
        'polynl_mmdet/__pycache__/a.pyc',
        '.pytest_cache/a',
        'environment/.polynl_mmdet-installed',
        'environment/polynl_mmdet-install.log',
    )
    others = (
        '.venv/bin/python',  # made by hand
        '.venv/lib/__pycache__/a.pyc',
        'work_dirs/my_run/epoch_12.pth',
        'data/coco/train2017/0.jpg',
        'data/toy_far_cue/train/0.jpg',
        'environment/bin/python',
        'polynl_mmdet/a.py',
        'dist/a.whl',
    )
    for name in (*made, *others):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('x')
    make(tmp_path, 'clean', VIRTUAL_ENV=str(tmp_path / 'environment'))
    assert [name for name in made if (tmp_path / name).exists()] == []
    assert [name for name in others if not (tmp_path / name).exists()] == []
    make(tmp_path, 'clean', VIRTUAL_ENV=str(tmp_path / 'environment'))  # again: nothing to do
