"""An mmdet project that has nothing to do with this one takes Poly-NL up with two lines."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest

TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
# The project as it was, but for the two marked lines: mmdet's RetinaNet on its own few images.
CONFIG = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)  # added
metainfo = dict(classes=('screw', 'nut'))
data = dict(
    data_root='parts/', ann_file='parts.json', data_prefix=dict(img='images/'), metainfo=metainfo)
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(96, 96), keep_ratio=True), dict(type='PackDetInputs')]
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(
    **data, pipeline=pipeline))
train_dataloader = loader
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(
    **data, pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='parts/parts.json')
test_evaluator = val_evaluator
model = dict(
    backbone=dict(
        plugins=[dict(cfg=dict(type='PolyNL'), position='after_conv2')],  # added
        init_cfg=None, frozen_stages=-1),
    bbox_head=dict(num_classes=2))
train_cfg = dict(max_epochs=1, val_interval=9)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a config and four annotated images."""
    root = tmp_path_factory.mktemp('project')
    (root / 'parts/images').mkdir(parents=True)
    (root / 'my_config.py').write_text(CONFIG)
    random = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(4):
        image = random.integers(0, 80, (96, 96, 3), np.uint8)
        x, y = (int(v) for v in random.integers(5, 50, 2))
        cv2.rectangle(image, (x, y), (x + 30, y + 30), (200, 50 * index, 255), -1)
        cv2.imwrite(str(root / f'parts/images/{index}.png'), image)
        images.append(dict(id=index, file_name=f'{index}.png', width=96, height=96))
        annotations.append(
            dict(id=index + 1, image_id=index, category_id=1 + index % 2, bbox=[x, y, 30, 30],
                 area=900, iscrowd=0)
        )  # fmt: skip
    categories = [dict(id=1, name='screw'), dict(id=2, name='nut')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'parts/parts.json').write_text(json.dumps(content))
    return root


@pytest.fixture(scope='module')
def trained(installed, project):
    """Path: the work_dir of its training, run as ``mim train mmdet`` runs it."""
    work = project / 'work'
    done = installed.run(TOOLS / 'train.py', 'my_config.py', '--work-dir', work, cwd=project)
    assert 'Epoch(train) [1][2/2]' in done.stdout + done.stderr
    return work


@pytest.mark.slow
def test_it_trains_and_tests_with_mmdets_own_tools(installed, project, trained):
    """As ``mim train mmdet`` and ``mim test mmdet`` run them."""
    # The checkpoint, which torch would not load without this package's loader, has the layer.
    keys = installed(
        'import polynl_mmdet; from polynl_mmdet.engine import load_checkpoint; '
        f'state = load_checkpoint({str(trained / "epoch_1.pth")!r})["state_dict"]; '
        'print(sum("poly_nl" in key and key.endswith("alpha") for key in state))'
    )
    assert int(keys.stdout) == 16  # in every bottleneck
    done = installed.run(
        TOOLS / 'test.py', 'my_config.py', trained / 'epoch_1.pth',
        '--work-dir', project / 'test', cwd=project,
    )  # fmt: skip
    assert 'Epoch(test) [4/4]' in done.stdout + done.stderr


@pytest.mark.slow
def test_its_analysis_tools_run(installed, project, trained):
    """mmdet's get_flops.py and analyze_logs.py; benchmark.py's inference asks for a GPU."""
    pytest.importorskip('seaborn', reason="mmdet's analyze_logs.py imports it")
    tools = TOOLS / 'analysis_tools'
    done = installed.run(tools / 'get_flops.py', 'my_config.py', '--num-images', 1, cwd=project)
    assert 'Flops:' in done.stdout
    (scalars,) = trained.glob('*/vis_data/scalars.json')
    lines = [line for line in scalars.read_text().splitlines() if '"loss"' in line]
    # Without the validation, which found nothing in two steps: mmdet's metric logs no value then,
    # and its own plot counts such a line as a step without a loss.
    log = project / 'scalars.json'
    log.write_text('\n'.join(lines) + '\n')
    # The onedl fork gives seaborn's name of a style, its default, to matplotlib.
    fork = 'style.use' in (tools / 'analyze_logs.py').read_text()
    style = ['--style', 'default'] if fork else []
    done = installed.run(
        tools / 'analyze_logs.py', 'plot_curve', log, '--keys', 'loss', '--out', 'loss.png',
        *style, cwd=project,
    )  # fmt: skip
    assert (project / 'loss.png').stat().st_size > 5000
    done = installed.run(tools / 'analyze_logs.py', 'cal_train_time', log, cwd=project)
    assert 'average iter time' in done.stdout
    done = installed.run(
        tools / 'benchmark.py', 'my_config.py', '--task', 'dataset', '--dataset-type', 'train',
        '--max-iter', 4, '--num-warmup', 1, cwd=project,
    )  # fmt: skip
    assert 'fps' in (done.stdout + done.stderr)
