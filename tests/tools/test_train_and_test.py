"""tools/train.py, test.py and the shell scripts, end to end on a few toy images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from demo.toy_coco import make_toy_coco
from polynl_mmdet.ops.compat import SAFE_GLOBALS

CONFIG = 'configs/demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    make_toy_coco(root, train=8, val=3, seed=3, size=96)
    return root


def options(toy, epochs=1, *more):
    ann_file = toy / 'annotations/instances_val.json'
    each = [
        f'{part}_dataloader.{option}'
        for part in ('train', 'val', 'test')
        for option in (f'dataset.data_root={toy}', 'num_workers=0', 'persistent_workers=False')
    ]
    return [
        '--cfg-options',
        *each,
        f'val_evaluator.ann_file={ann_file}',
        f'test_evaluator.ann_file={ann_file}',
        'train_dataloader.batch_size=2',
        'model.backbone.base_channels=8',
        'model.backbone.stem_channels=8',
        'model.neck.in_channels=[8,16,32,64]',
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs}',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=1',
        *more,
    ]


def test_train_test_resume_and_report(run_tool, toy, tmp_path):
    work = tmp_path / 'work'

    def run(*words):
        done = run_tool(*words)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    assert 'segm_mAP_50' in run('train.py', CONFIG, '--work-dir', work, *options(toy))
    checkpoint = work / 'epoch_1.pth'
    assert Path((work / 'last_checkpoint').read_text()) == checkpoint
    output = run('test.py', CONFIG, checkpoint, '--work-dir', work / 'test', '--show-dir', 'images',
                 *options(toy))  # fmt: skip
    assert 'segm_mAP_50' in output
    assert len(list(work.glob('test/*/images/*.jpg'))) == 3

    run('train.py', CONFIG, '--work-dir', work, '--resume', *options(toy, 2))
    logs = [path.read_text().splitlines() for path in work.glob('*/vis_data/scalars.json')]
    records = [json.loads(line) for log in logs for line in log if 'loss_mask' in line]
    assert sorted(record['step'] for record in records) == list(range(1, 9))
    assert all(0 < record['loss'] < 100 for record in records)

    assert 'coco/segm_mAP_50' in run('report_run.py', work, '--images', '2')
    assert len(list((work / 'report/images').glob('*.png'))) == 2
    for name in ('curves.png', 'confusion_matrix.png', 'images.jpg'):
        assert (work / 'report' / name).stat().st_size > 5000
    assert not list((work / 'report').glob('*.pth'))


SETS = 'train_dataloader.dataset', 'val_dataloader.dataset'


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        (['train_dataloader.dataset.ann_file=annotations/none.json'], ['none.json', 'No such']),
        ([f"{s}.metainfo.classes='cross'" for s in SETS], ["('cross',)"]),
        (['model.roi_head.mask_head.num_classes=2'], ['mask_head.num_classes=2, expected 4']),
        (['val_evaluator.ann_file={toy}/annotations/instances_train.json'], ['val_evaluator']),
        (['train_dataloader.dataset.filter_cfg.min_size=999'], ['train.json', 'min_size', '999']),
        (['load_from={toy}/fits_nothing.pth'], ['fits_nothing.pth', 'fits 0', 'body.stage1']),
    ],
)
def test_input_that_does_not_fit_ends_in_one_line_before_training(
    run_tool, toy, tmp_path, more, words
):
    torch.save({'body.stage1.0.0.weight': torch.zeros(1)}, toy / 'fits_nothing.pth')
    more = [option.format(toy=toy) for option in more]
    done = run_tool('train.py', CONFIG, '--work-dir', tmp_path, *options(toy, 1, *more))
    assert done.returncode == 2, done.stdout[-3000:]
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith('error: ')
    assert all(word in last for word in words), last
    assert 'Traceback' not in done.stdout
    assert 'Epoch(train)' not in done.stdout


@pytest.mark.skipif(
    not SAFE_GLOBALS, reason="torch 2.6: mmengine's checkpoints with weights_only=True"
)
def test_an_untrusted_checkpoint_runs_nothing(run_tool, toy, tmp_path):
    class Call:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/marker',)

    bad, work = tmp_path / 'bad.pth', ['--work-dir', tmp_path / 'work']
    torch.save({'state_dict': {}, 'x': Call()}, bad)
    for command in (
        ['test.py', CONFIG, bad, *work, *options(toy)],
        ['train.py', CONFIG, *work, *options(toy, 1, f'load_from={bad}')],
    ):
        done = run_tool(*command)
        assert done.returncode == 1
        assert 'Weights only load failed' in done.stdout
    assert not (tmp_path / 'marker').exists()


def test_a_missing_config_is_named(run_tool):
    done = run_tool('train.py', 'configs/none.py')
    assert done.returncode == 2
    assert done.stdout.strip().splitlines()[-1].startswith('error: configs/none.py: no such')


@pytest.mark.parametrize(
    'name', ['compare_runs', 'convert_retinaface', 'export_onnx', 'face_demo', 'report_run']
)
def test_help_answers_before_slow_imports(name, repo_root):
    code = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(['torch', 'mmcv', 'mmdet'])); "
        "sys.argv[1:] = ['--help']; "
        f"runpy.run_path({str(repo_root / 'tools' / name)!r} + '.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'usage: ' in done.stdout


def test_one_warning_of_pkg_resources_at_most(repo_root):
    """mmengine imports it again for each base of another package."""
    words = [sys.executable, 'tools/test.py', CONFIG, 'absent.pth']
    env = dict(os.environ, PYTHONPATH=str(repo_root))
    done = subprocess.run(
        words, cwd=repo_root, env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr.count('pkg_resources is deprecated') <= 1, done.stderr
