"""RetinaFace end to end: mmdet's tools on real images and on drawn ones."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from demo.toy_wider import make_toy_wider
from polynl_mmdet.wider_face import read_ground_truth, read_predictions, score_wider_face
from polynl_mmdet.wider_face.annotations import read_annotations

FOLDER = Path(__file__).parents[2] / 'configs' / 'retinaface'
MOBILENET = FOLDER / 'retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'
R50 = FOLDER / 'retinaface_r50-polynl-site-c4_fpn_8xb4-80e_widerface.py'
TOY = FOLDER.parent / 'demo' / 'retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider.py'


def logged(work_dir):
    """The training log's records, one dict an iteration."""
    (path,) = sorted(work_dir.rglob('vis_data/scalars.json'))[-1:]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if 'loss' in record]


def last_metrics(work_dir):
    """The numbers of the last test run."""
    path = max(work_dir.glob('*/*.json'), key=lambda p: p.stat().st_mtime)
    return json.loads(path.read_text())


def ok(result):
    assert result.returncode == 0, result.stdout[-3000:]
    return result


@pytest.fixture
def mini(data_root):
    root = data_root / 'wider_mini'
    if not root.is_dir():
        pytest.skip(f'no real images at {root}')
    return root


@pytest.fixture
def label_with_landmarks(mini, tmp_path):
    """The real faces of wider_mini as a label.txt, landmarks put where faces mostly have them."""
    annotations = read_annotations(str(mini / 'wider_face_split/wider_face_val_bbx_gt.txt'))
    boxes = annotations.boxes()
    where = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    lines = []
    for index, name in enumerate(annotations.names):
        lines.append(f'# {name}')
        for box in boxes[annotations.starts[index] : annotations.starts[index + 1]]:
            size = box[2:] - box[:2]
            marks = ' '.join(f'{x:.2f} {y:.2f} 0.0' for x, y in box[:2] + where * size)
            lines.append(f'{box[0]:.0f} {box[1]:.0f} {size[0]:.0f} {size[1]:.0f} {marks} 0.9')
    path = tmp_path / 'label.txt'
    path.write_text('\n'.join(lines) + '\n')
    return path


def test_real_weights_score_as_the_reference_does(run_tool, mini, data_root, tmp_path):
    """tools/test.py gives the AP of the reference detections, and files that score the same."""
    folder = data_root / 'retinaface_mobilenet025'
    checkpoint, out = tmp_path / 'model.pth', tmp_path / 'out'
    ok(run_tool('convert_retinaface.py', folder / 'mobilenet0.25_Final.pth', checkpoint))
    truth = data_root / 'wider_eval' / 'ground_truth'
    ok(
        run_tool(
            'test.py',
            MOBILENET,
            checkpoint,
            '--work-dir',
            tmp_path / 'work',
            '--cfg-options',
            f'test_dataloader.dataset.data_root={mini}',
            f'test_evaluator.gt_dir={truth}',
            'test_evaluator.subset=True',
            f'test_evaluator.outfile_prefix={out}',
        )
    )
    reference = {
        f'22--Picnic/{name}': np.concatenate(
            [found[:, :2], found[:, 2:4] - found[:, :2], found[:, 4:5]], axis=1
        )
        for name, found in np.load(folder / 'reference_detections.npz').items()
    }
    ground_truth = read_ground_truth(str(truth))
    expected = score_wider_face(reference, ground_truth, 0.5, True).ap
    predictions, _ = read_predictions(out)
    written = score_wider_face(predictions, ground_truth, 0.5, True).ap
    result = last_metrics(tmp_path / 'work')
    assert set(expected) == {'easy', 'medium', 'hard'}
    # The row of docs/wider_face.md that this test measures.
    page = (FOLDER.parents[1] / 'docs/wider_face.md').read_text()
    assert ' / '.join(f'{ap:.4f}' for ap in expected.values()) in page
    for key, value in expected.items():
        assert result[f'wider_face/{key}'] == pytest.approx(value, abs=1e-3)
        assert written[key] == pytest.approx(result[f'wider_face/{key}'], abs=1e-6)


@pytest.mark.slow
def test_r50_trains_on_real_images(run_tool, mini, data_root, label_with_landmarks, tmp_path):
    """Five steps at 320 x 320: finite, falling losses, and a checkpoint that tests."""
    truth = data_root / 'wider_eval' / 'ground_truth'
    common = [
        'model.backbone.init_cfg=None',
        f'train_dataloader.dataset.ann_file={label_with_landmarks}',
        f'val_evaluator.gt_dir={truth}',
        f'test_evaluator.gt_dir={truth}',
        'test_evaluator.subset=True',
    ]
    common += [f'{s}_dataloader.dataset.data_root={mini}' for s in ('train', 'val', 'test')]
    common += [f'{s}_dataloader.dataset.data_prefix.img=WIDER_val/images' for s in ('train', 'val')]
    # One small image is enough to show that the checkpoint tests.
    for split in ('val', 'test'):
        common += [
            f'{split}_dataloader.dataset.indices=1',
            f'{split}_dataloader.dataset.pipeline.1.scale=(480,480)',
            f'{split}_dataloader.num_workers=0',
            f'{split}_dataloader.persistent_workers=False',
        ]
    work = tmp_path / 'work'
    ok(
        run_tool(
            'train.py',
            R50,
            '--work-dir',
            work,
            '--cfg-options',
            *common,
            'train_dataloader.batch_size=2',
            'train_dataloader.dataset.indices=10',
            'train_dataloader.dataset.pipeline.3.scale=(320,320)',
            'train_dataloader.num_workers=0',
            'train_dataloader.persistent_workers=False',
            'train_cfg.max_epochs=1',
            'default_hooks.logger.interval=1',
            'log_processor.window_size=1',
            'randomness.seed=0',
        )
    )
    losses = [record['loss'] for record in logged(work)]
    assert len(losses) == 5
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    ok(
        run_tool(
            'test.py',
            R50,
            work / 'epoch_1.pth',
            '--work-dir',
            work / 'test',
            '--cfg-options',
            *common,
        )
    )
    assert 'wider_face/hard' in last_metrics(work / 'test')


@pytest.mark.slow
def test_demo_config_trains_resumes_and_tests_all_ways(run_tool, tmp_path):
    """A few steps on drawn faces: test, --tta, --show-dir, --resume."""
    data, work = tmp_path / 'toy', tmp_path / 'work'
    make_toy_wider(data, train=24, val=4, size=128)
    options = [f'{s}_dataloader.dataset.data_root={data}/' for s in ('train', 'val', 'test')]
    options += [f'{s}_evaluator.0.gt_dir={data}/eval_tools/ground_truth' for s in ('val', 'test')]
    options += ['train_dataloader.batch_size=8', 'default_hooks.checkpoint.interval=1']
    options += ['default_hooks.logger.interval=1']
    env = {'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '2')}
    train = ['train.py', TOY, '--work-dir', work, '--cfg-options', *options]
    ok(run_tool(*train, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', env=env))
    # mmdet takes --resume before --cfg-options, which takes all that follows.
    again = ['train.py', TOY, '--work-dir', work, '--resume', '--cfg-options', *options]
    ok(run_tool(*again, 'train_cfg.max_epochs=2', 'train_cfg.val_interval=2', env=env))
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=False)  # our own file
    assert checkpoint['meta']['epoch'] == 2
    for extra in ([], ['--tta', '--show-dir', 'images']):
        test = ['test.py', TOY, work / 'epoch_2.pth', '--work-dir', work / 'test']
        ok(run_tool(*test, *extra, '--cfg-options', *options, env=env))
        result = last_metrics(work / 'test')
        assert {'wider_face/easy', 'face_landmarks/nme'} <= set(result)
    assert len(list((work / 'test').rglob('images/*.jpg'))) == 4
