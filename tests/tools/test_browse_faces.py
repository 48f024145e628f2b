"""tools/browse_faces.py writes an image of a pipeline's steps."""

from __future__ import annotations

import cv2
import pytest

from demo.toy_wider import make_toy_wider

CONFIG = """
train_dataloader = dict(dataset=dict(
    type='RetinaFaceDataset',
    data_root='{root}',
    ann_file='retinaface_gt_v1.1/train/label.txt',
    data_prefix=dict(img='WIDER_train/images'),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadFaceAnnotations', with_bbox=True),
        dict(type='RandomSquareCrop'),
        dict(type='FaceResize', scale=(64, 64)),
        dict(type='PackFaceInputs'),
    ]))
"""


@pytest.fixture
def config(tmp_path):
    """A config over a small drawn set."""
    make_toy_wider(tmp_path / 'toy', train=6, val=1, size=64)
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=tmp_path / 'toy'))
    return path


def test_one_column_a_step_with_boxes(run_tool, config, tmp_path):
    done = run_tool('browse_faces.py', config, '--out', tmp_path / 'faces.png', '--images', 2)
    assert done.returncode == 0, done.stdout
    assert '2 images after 3 steps each' in done.stdout
    assert cv2.imread(str(tmp_path / 'faces.png')).shape == (480, 720, 3)


def test_bad_arguments_are_one_line(run_tool, config, tmp_path):
    for options, says in (
        ([config, '--images', 0], '--images: 0'),
        ([config, '--out', tmp_path / 'x.xyz'], '--out: '),
        ([tmp_path / 'absent.py'], f'{tmp_path / "absent.py"}: no such config file'),
    ):
        done = run_tool('browse_faces.py', *options)
        assert done.returncode == 2
        assert f'error: {says}' in done.stdout
