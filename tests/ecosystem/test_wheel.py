"""The wheel, installed outside the source folder, in an mmdet project of someone else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from coco_files import make_coco

ROOT = Path(__file__).parents[2]
MASK_RCNN = 'polynl_mmdet::mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py'
# mmdet's RetinaNet on two images, with the two lines that add Poly-NL.
CONFIG = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)
data = dict(data_root='parts/', ann_file='parts.json', data_prefix=dict(img=''),
            metainfo=dict(classes=('screw',)))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(96, 96), keep_ratio=True), dict(type='RandomFlip', prob=0.0),
            dict(type='PackDetInputs')]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(**data, pipeline=pipeline))
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
model = dict(
    backbone=dict(plugins=[dict(cfg=dict(type='PolyNL'), position='after_conv2')],
                  init_cfg=None, frozen_stages=-1),
    bbox_head=dict(num_classes=1))
train_cfg = dict(max_epochs=1, val_interval=9)
default_hooks = dict(logger=dict(interval=1))
"""


def run(*words, **kwargs):
    """Run a command without the source folder on its path."""
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    env.update(PYTHONWARNINGS='ignore', PIP_DISABLE_PIP_VERSION_CHECK='1', OMP_NUM_THREADS='1')
    done = subprocess.run(
        [*map(str, words)], env=env, capture_output=True, text=True, check=False, **kwargs
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Path: the wheel, built from a copy of the source."""
    folder = tmp_path_factory.mktemp('wheel')
    ignore = shutil.ignore_patterns('.*', 'tests', 'build', 'work_dirs', 'data', '*.egg-info')
    shutil.copytree(ROOT, folder / 'source', ignore=ignore)
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q']
    run(*pip, folder / 'source', '-w', folder)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def environment(wheel, tmp_path_factory):
    """Path: a virtual environment with the wheel, and the other packages of this one."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=False)
    site_packages = next(folder.glob('lib/python*/site-packages'))
    pip = [sys.executable, '-m', 'pip', '--python', folder / 'bin/python', 'install', '-q']
    run(*pip, '--no-deps', '--no-index', wheel)
    # This does not run the .pth files of an editable installation of this project.
    others = sorted({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')})
    (site_packages / 'others.pth').write_text('\n'.join(others) + '\n')
    # But mmengine imports distutils, which Python 3.12 and newer have from setuptools.
    shutil.copy(Path(others[0]) / 'distutils-precedence.pth', site_packages)
    return folder


def test_its_files(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'polynl_mmdet').rglob('*.py')}
    expected = {name for name in modules if '/.mim/' not in name}
    for folder in ('configs', 'tools'):
        files = [path for path in (ROOT / folder).rglob('*') if path.is_file()]
        expected |= {f'polynl_mmdet/.mim/{path.relative_to(ROOT).as_posix()}' for path in files}
    expected |= {'polynl_mmdet/.mim/model-index.yml', 'polynl.py'}
    expected |= {'polynl_mmdet_lookup.py', 'polynl_mmdet_lookup.pth'}
    assert names == {name for name in expected if '__pycache__' not in name}


def test_configs_and_commands_are_found_from_any_directory(environment, tmp_path):
    (tmp_path / 'mine.py').write_text(f'_base_ = {MASK_RCNN!r}\nmodel = dict(x=1)\n')
    code = (
        'from mmengine.config import Config; import mmengine.hub\n'
        'print(Config.fromfile("mine.py").model.backbone.type)\n'
        f'print(mmengine.hub.get_config({MASK_RCNN!r}).filename)'
    )
    backbone, filename = run(environment / 'bin/python', '-c', code, cwd=tmp_path).split()[-2:]
    assert backbone == 'SiteResNet'
    assert Path(filename).resolve().is_relative_to(environment.resolve())
    output = run(environment / 'bin/polynl', 'eval-wider-face', '--help', cwd=tmp_path)
    assert 'usage: polynl eval-wider-face' in output


@pytest.mark.slow
def test_another_project_trains_with_mmdets_own_tool(environment, tmp_path):
    (tmp_path / 'parts').mkdir()
    (tmp_path / 'config.py').write_text(CONFIG)
    make_coco(tmp_path / 'parts/parts.json', images=2, names=('screw',), size=96)
    for number in (1, 2):
        image = np.full((96, 96, 3), 90, np.uint8)
        cv2.imwrite(str(tmp_path / f'parts/{number}.jpg'), image)
    tool = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    run(environment / 'bin/python', tool, 'config.py', '--work-dir', 'work', cwd=tmp_path)
    state = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)['state_dict']
    assert sum('poly_nl' in key and key.endswith('alpha') for key in state) == 16  # bottlenecks
