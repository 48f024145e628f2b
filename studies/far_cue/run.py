"""Does a detector learn classes that something far away decides? With and without a layer.

    python -m studies.far_cue.run --output far_cue_detection.json

Draws the far-cue images, trains a small Mask R-CNN (mask-rcnn_far-cue.py) for every
learning rate, seed and layer by tools/train.py, and prints a table of COCO metrics. Without a layer
the shapes can be found but their class only guessed. Each finished run is stored at once; the same
command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from benchmarks.measure import machine, markdown
from polynl_mmdet.errors import InputError, one_line_errors
from studies.far_cue.images import MIN_DISTANCE, make_far_cue
from studies.runs import mean_and_spread, read_config, run_all, run_name, take_up

ROOT = Path(__file__).parents[2]
DATA = Path('data/toy_far_cue')
CONFIG = Path(__file__).with_name('mask-rcnn_far-cue.py')
NON_LOCAL = dict(type='NonLocal2d', reduction=2, mode='embedded_gaussian')
LAYERS: dict[str, dict | None] = {
    'none': None,
    'PolyNL': dict(type='PolyNL', context_norm=True),
    'PolyNL-published': dict(type='PolyNL'),
    'NonLocal2d': NON_LOCAL,
    'NonLocal2d-BN': dict(NON_LOCAL, norm_cfg=dict(type='BN')),
    'ContextBlock': dict(type='ContextBlock', ratio=1.0 / 4),
}
METRICS = ('bbox_mAP', 'bbox_mAP_50', 'segm_mAP', 'segm_mAP_50')
# A box AP50 that a detector which guesses between two classes does not reach.
LEARNT = 0.9
# Pixels that a proposal which counts as right can reach beyond its shape (its own size at most),
# and a cell of interpolation.
BEYOND_SHAPE = 32 + 8


def config_of(layer: str) -> Config:
    """Config: the detector with a layer of LAYERS before the last residual block of c3."""
    cfg = read_config(CONFIG)
    if LAYERS[layer]:
        cfg.model.backbone.sites = [dict(cfg=LAYERS[layer], stage='c3', before_block=-1)]
    return cfg


class _Pyramid(nn.Module):
    """Backbone and neck of a detector."""

    def __init__(self, model: dict) -> None:
        super().__init__()
        init_default_scope('mmdet')
        self.backbone = MODELS.build(model['backbone'])
        self.neck = MODELS.build(model['neck'])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.neck(self.backbone(x))


def reach(config: Config, size: int = 512) -> int:
    """How far from a feature's place in the image a pixel can be that it depends on.

    An image column of NaN makes all features that see it NaN, through any convolution, pooling
    and activation.

    Args:
        config (Config): A detector's config with backbone and neck.
        size (int): Side of the image, more than twice the result. Defaults to 512.

    Returns:
        int: Pixels, the most over the pyramid's levels.
    """
    pyramid = _Pyramid(config.model).eval()
    farthest = 0.0
    with torch.no_grad():
        for column in range(size // 2, size // 2 + 8):
            x = torch.zeros(1, 3, 64, size)
            x[..., column] = float('nan')
            for level in pyramid(x):
                stride = size / level.shape[3]
                seen = level.isnan().any(dim=1)[0].any(dim=0).nonzero().flatten()
                distances = ((seen + 0.5) * stride - 0.5 - column).abs()
                farthest = max(farthest, float(distances.max()))
    return round(farthest)


def config_of_run(layer: str, rate: float, seed: int, epochs: int) -> Config:
    """Config: of one training, whose arguments are those of :func:`train`."""
    cfg = config_of(layer)
    data = f'{DATA.resolve()}/'
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].dataset.data_root = data
    for part in ('val', 'test'):
        cfg[f'{part}_evaluator'].ann_file = data + 'annotations/instances_val.json'
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'.site': dict(lr_mult=rate)})
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.checkpoint.interval = 1000
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.param_scheduler[1].update(T_max=epochs, end=epochs)
    return cfg


def train(layer: str, rate: float, seed: int, epochs: int) -> dict:
    """Train one detector in a process of its own.

    Args:
        layer (str): A key of LAYERS.
        rate (float): Learning rate of the layer's own parameters, in multiples of the network's.
        seed (int): Of weights and order of the images.
        epochs (int): How long.

    Returns:
        dict: METRICS of the last epoch, between 0 and 1, ``step_s`` (median seconds a training
        step) and ``minutes``.

    Raises:
        InputError: Training failed.
    """
    work_dir = Path('work_dirs/far_cue_detection', f'{layer}-{rate:g}-{seed}')
    work_dir.mkdir(parents=True, exist_ok=True)
    config = work_dir / 'config.py'
    config_of_run(layer, rate, seed, epochs).dump(config)
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config)]
    command += ['--work-dir', str(work_dir)]
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ['no output'])[-1]
        raise InputError(f'training {layer}, seed {seed}', last, f'see {work_dir}')
    log = max(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in log.read_text(encoding='utf-8').splitlines()]
    last = next(record for record in reversed(records) if 'coco/segm_mAP' in record)
    return {
        **{name: last[f'coco/{name}'] for name in METRICS},
        'step_s': statistics.median(record['time'] for record in records if 'loss' in record),
        'minutes': (time.monotonic() - started) / 60,
    }


def table(report: dict) -> str:
    """Return a row a layer and learning rate, mean and spread over the seeds."""
    rows = []
    for layer in LAYERS:
        for rate in report['rates'] if layer != 'none' else report['rates'][:1]:
            begin = run_name((layer, rate, ''))
            runs = [run for name, run in report['runs'].items() if name.startswith(begin)]
            cells = [mean_and_spread([run[metric] for run in runs]) for metric in METRICS]
            learnt = sum(run['bbox_mAP_50'] > LEARNT for run in runs)
            shown = '' if layer == 'none' else f'{rate:g} x'
            rows.append([layer, shown, *cells, f'{learnt} of {len(runs)}' if runs else 'not run'])
    return markdown(['layer', 'learning rate', *METRICS, 'learnt it'], rows)


def main() -> None:
    """Prepare data and results, run what is left, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--output', type=Path, default=Path('far_cue_detection.json'))
    parser.add_argument('--layer', nargs='+', choices=LAYERS, default=list(LAYERS))
    parser.add_argument(
        '--rates',
        type=float,
        nargs='+',
        default=[1.0, 10.0],
        help="learning rates of the layer's own parameters, in the network's (default: 1 10)",
    )
    parser.add_argument('--seeds', type=int, default=5, help='runs a rate (default: 5)')
    parser.add_argument('--epochs', type=int, default=6, help='50 steps each (default: 6)')
    parser.add_argument('--workers', type=int, default=2, help='runs at a time (default: 2)')
    args = parser.parse_args()
    if not (DATA / 'annotations').exists():
        make_far_cue(DATA, 400, 100)
    report = {
        'command': ' '.join(['python -m studies.far_cue.run', *sys.argv[1:]]),
        'machine': dict(machine('cpu'), threads=1, workers=args.workers),
        'epochs': args.epochs,
        'rates': args.rates,
        'reach': reach(config_of('none')),
        'distance': MIN_DISTANCE,
    }
    if report['reach'] + BEYOND_SHAPE >= MIN_DISTANCE:
        raise InputError(str(CONFIG), f'reaches {report["reach"]} pixels')
    report['runs'] = take_up(report, args.output, 'epochs')
    print(
        f'without a layer a feature reaches {report["reach"]} pixels, a proposal at most '
        f'{BEYOND_SHAPE} beyond its shape; the cue is {MIN_DISTANCE} or more away',
        flush=True,
    )

    def jobs(report: dict) -> list[tuple]:
        every = [
            (layer, rate, seed)
            for rate in args.rates
            for seed in range(args.seeds)
            for layer in args.layer
            if layer != 'none' or rate == args.rates[0]
        ]
        return [job for job in every if run_name(job) not in report['runs']]

    one = partial(train, epochs=args.epochs)
    run_all(report, args.output, jobs, one, ThreadPoolExecutor(args.workers), args.workers)
    print('\n' + table(report))


if __name__ == '__main__':
    with one_line_errors():
        main()
