"""Feeds detections to WIDERFaceMetric as a test loop does, in one process of several."""

from __future__ import annotations

import os

import numpy as np
import torch

from polynl_mmdet.cli import leave_process_group


def as_samples(predictions, dtype=torch.float64):
    """Predictions (x, y, w, h, score by EVENT/NAME) as the data samples an evaluator passes."""
    return [
        dict(
            img_path=f'data/images/{name}.jpg',
            pred_instances=dict(
                bboxes=torch.from_numpy(np.c_[rows[:, :2], rows[:, :2] + rows[:, 2:4]]).to(dtype),
                scores=torch.from_numpy(rows[:, 4].copy()).to(dtype),
                labels=torch.zeros(len(rows), dtype=torch.long),
            ),
        )
        for name, rows in predictions.items()
    ]


def evaluate(predictions, rank, world, options):
    """Process this rank's share of the images, padded as mmengine's samplers do."""
    from polynl_mmdet.evaluation import WIDERFaceMetric

    metric = WIDERFaceMetric(**options)
    samples = as_samples(predictions)
    padded = samples + samples[: -len(samples) % world]
    share = padded[rank::world]
    for begin in range(0, len(share), 7):
        metric.process({}, share[begin : begin + 7])
    return metric.evaluate(len(samples))


def run(rank, world, store, predictions, options, queue):
    """Entry point of a process."""
    torch.set_num_threads(1)
    os.chdir(store.parent)  # mmengine makes .dist_test where it is.
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=world
    )
    queue.put((rank, evaluate(predictions, rank, world, options)))
    leave_process_group()
