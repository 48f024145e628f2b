"""mmengine's local and TensorBoard back ends show losses, images and landmarks of a run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.toy_wider import make_toy_wider

TOY = Path(__file__).parents[2] / 'configs/demo'
TOY /= 'retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider.py'
CONFIG = f"""
_base_ = {str(TOY)!r}
visualizer = dict(
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
default_hooks = dict(visualization=dict(draw=True, interval=1))
"""
LOSSES = {'loss', 'loss_cls', 'loss_bbox', 'loss_landmark'}


def is_near(image, colour):
    """Whether a BGR image has a few pixels of an RGB colour."""
    distance = np.abs(image[..., ::-1].astype(int) - colour).max(axis=2)
    return (distance < 40).sum() >= 3


def test_losses_images_and_landmarks(run_tool, tmp_path):
    accumulators = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    from polynl_mmdet.visualization.face_visualizer import BOX_COLOUR, COLOURS

    data, work = tmp_path / 'toy', tmp_path / 'work'
    make_toy_wider(data, train=8, val=2, size=128)
    options = [f'{s}_dataloader.dataset.data_root={data}/' for s in ('train', 'val', 'test')]
    options += [f'{s}_evaluator.0.gt_dir={data}/eval_tools/ground_truth' for s in ('val', 'test')]
    config = tmp_path / 'config.py'
    config.write_text(CONFIG)
    done = run_tool(
        'train.py', config, '--work-dir', work, '--cfg-options', *options,
        'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=4',
        'default_hooks.logger.interval=1',
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]

    (scalars,) = work.rglob('vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert set(records[0]) >= LOSSES | {'lr'}
    local = sorted(work.rglob('vis_data/vis_image/*.png'))
    assert len(local) == 2

    (events,) = work.rglob('events.out.tfevents.*')
    board = accumulators.EventAccumulator(str(events), size_guidance={'images': 0, 'scalars': 0})
    board.Reload()
    assert set(board.Tags()['scalars']) >= LOSSES | {'lr', 'wider_face/easy'}
    assert len(board.Scalars('loss')) == 2
    (tag,) = board.Tags()['images']
    shown = [
        cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
        for event in board.Images(tag)
    ]
    assert len(shown) == 2
    for image in (*shown, *(cv2.imread(str(path)) for path in local)):
        # The annotation is drawn in any case: a box, and five landmarks in their colours.
        assert is_near(image, BOX_COLOUR)
        assert all(is_near(image, colour) for colour in COLOURS)
