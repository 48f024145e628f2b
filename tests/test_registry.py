"""Configs as bases: ``_base_ = 'polynl_mmdet::...'`` in a project of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mmdet.registry
import mmengine.hub
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from mmengine.registry import MODELS, Registry
from mmengine.runner import Runner

import polynl_mmdet.registry
from polynl_mmdet.layers import PolyNL

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(
    path.relative_to(ROOT / 'configs').as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
MASK_RCNN = 'mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py'
RETINAFACE = 'retinaface/retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'

pytestmark = pytest.mark.skipif(
    not (ROOT / 'polynl_mmdet/.mim').exists(), reason='polynl_mmdet is not installed'
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of someone's own to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def child_of(project, name):
    path = project / 'mine.py'
    path.write_text(f"_base_ = 'polynl_mmdet::{name}'\n")
    return path


def our_warnings(output):
    return [line for line in output.splitlines() if 'WARN' in line.upper() and 'polynl_m' in line]


def test_every_registry_of_mmdet_has_a_child():
    for name, parent in vars(mmdet.registry).items():
        if isinstance(parent, Registry) and parent.scope == 'mmdet':
            child = getattr(polynl_mmdet.registry, name)
            assert child.parent is parent
            assert child.scope == 'polynl_mmdet'


@pytest.mark.parametrize('name', CONFIGS)
def test_a_child_of_every_config_builds(name, project, capfd, recwarn):
    """As a Runner builds it: model, hooks, loops, optimizer, visualizer."""
    cfg = Config.fromfile(child_of(project, name))
    cfg.work_dir = str(project / 'work')
    cfg.visualizer.name = name  # One per process of each name.
    runner = Runner.from_cfg(cfg)  # Pretrained weights are read when it trains.
    assert type(runner.model).__name__ in ('MaskRCNN', 'RetinaNet', 'RetinaFace')
    layers = any('polynl' in part for part in name.split('_'))
    assert any(isinstance(module, PolyNL) for module in runner.model.modules()) == layers
    runner.build_optim_wrapper(cfg.optim_wrapper)
    printed = capfd.readouterr()
    assert not our_warnings(printed.out + printed.err)
    ours = [str(w.message) for w in recwarn if 'polynl_m' in f'{w.message} {w.filename}']
    assert not ours


@pytest.fixture
def data(project, data_root):
    """``data/`` as the configs name it, and stand-ins for downloads in torch's cache."""
    mini, faces = (data_root / 'wider_mini').resolve(), project / 'data/widerface'
    label = faces / 'retinaface_gt_v1.1/train/label.txt'
    cache = project / 'torch/hub/checkpoints'
    for folder in (label.parent, cache):
        folder.mkdir(parents=True)
    for name, target in (
        ('coco', data_root / 'coco_mini'),
        ('widerface/WIDER_val', mini / 'WIDER_val'),
        ('widerface/WIDER_train', mini / 'WIDER_val'),
        ('widerface/wider_face_split', mini / 'wider_face_split'),
        ('widerface/eval_tools', data_root / 'wider_eval'),
    ):
        (project / 'data' / name).symlink_to(target.resolve())
    images = sorted((mini / 'WIDER_val/images').rglob('*.jpg'))
    names = [f'{path.parent.name}/{path.name}' for path in images]
    label.write_text(''.join(f'# {name}\n20 20 90 90 {"-1 " * 15}0.9\n' for name in names))
    torch.save(ResNet(50).state_dict(), cache / 'resnet50-0676ba61.pth')


@pytest.mark.parametrize('name', [MASK_RCNN, RETINAFACE])
def test_a_child_trains_and_tests(name, project, data, run_tool):
    options = ['train_dataloader.batch_size=1', 'train_cfg.max_epochs=1', 'train_cfg.val_begin=2']
    options += [
        f'{part}_dataloader.{key}'
        for part in ('train', 'val', 'test')
        for key in ('num_workers=0', 'persistent_workers=False', 'dataset.indices=2')
    ]
    if name == MASK_RCNN:
        options += [
            'model.train_cfg.rpn_proposal.max_per_img=50',
            'model.test_cfg.rpn.max_per_img=50',
            'train_dataloader.dataset.pipeline.2.scale=(160,128)',
            'test_dataloader.dataset.pipeline.1.scale=(160,128)',
        ]
    else:
        options += ['test_evaluator.subset=True', 'val_evaluator.subset=True']
    config, env = child_of(project, name), {'TORCH_HOME': str(project / 'torch')}
    for words in (['train.py', config], ['test.py', config, 'work_dirs/mine/epoch_1.pth']):
        done = run_tool(*words, '--cfg-options', *options, cwd=project, env=env)
        assert done.returncode == 0, done.stdout[-3000:]
        assert not our_warnings(done.stdout)


def test_hub_and_inferencer(project):
    cfg = mmengine.hub.get_config(f'polynl_mmdet::{RETINAFACE}')
    assert cfg.model.type == 'RetinaFace'
    assert mmengine.hub.get_model(f'polynl_mmdet::{RETINAFACE}').bbox_head.num_classes == 1
    inferencer = DetInferencer(str(child_of(project, RETINAFACE)), device='cpu')
    assert type(inferencer.model).__name__ == 'RetinaFace'


def test_a_pure_python_config(project):
    """Classes instead of names, and a base read by ``read_base``."""
    (project / 'base.py').write_text(
        'from polynl_mmdet.models import SiteResNet\n'
        'from polynl_mmdet.layers import PolyNL\n'
        "site = dict(cfg=dict(type=PolyNL, context_norm=True), stage='c4', before_block=-1)\n"
        'model = dict(type=SiteResNet, depth=18, sites=[site])\n'
    )
    (project / 'mine.py').write_text(
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .base import *\n'
        'model.update(depth=34)\n'
    )
    backbone = MODELS.build(Config.fromfile(project / 'mine.py').model)
    assert isinstance(backbone.layer3.site5_0, PolyNL)


@pytest.mark.parametrize(
    ('hidden', 'registered', 'warnings'), [('mmdet', 1, 0), ('mmcv', 1, 1), ('mmengine', 0, 0)]
)
def test_without_a_package_the_layers_remain(hidden, registered, warnings):
    code = f"""
import sys
sys.modules['{hidden}'] = None  # Importing it raises ModuleNotFoundError.
import polynl_mmdet
from polynl_mmdet.layers import PolyNL
if {registered}:
    from mmengine.registry import MODELS
    assert MODELS.get('PolyNL') is PolyNL
"""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('UserWarning: polynl_mmdet: only its layers') == warnings
    assert warnings == 0 or hidden in done.stderr
