"""Does a detector learn classes that something far away decides, with and without a layer?

    python -m studies.far_cue.run --output far_cue.json    # 55 trainings of 4 minutes
    python -m studies.far_cue.run --quick                  # seconds: does it run?
    python -m studies.far_cue.run --table studies/far_cue/results/far_cue_detection.json

Draws the images, trains a small Mask R-CNN (mask-rcnn_far-cue.py) for every learning rate, seed and
layer, and prints a table. The same command continues an interrupted study.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from polynl_mmdet.errors import one_line_errors
from polynl_mmdet.runs import markdown, mean_and_spread, read_log
from studies.far_cue.images import MIN_DISTANCE, make_far_cue
from studies.runs import read_config, run_all, run_name, run_tool, stored_runs

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
# Guessing between two classes does not reach this box AP50.
LEARNT = 0.9
# Pixels that a proposal with IoU 0.5 reaches beyond its shape, and one cell of interpolation.
BEYOND_SHAPE = 32 + 8


def config_of(layer: str) -> Config:
    """Config: the detector with a layer of LAYERS before the last residual block of c3."""
    cfg = read_config(CONFIG)
    if LAYERS[layer]:
        cfg.model.backbone.sites = [dict(cfg=LAYERS[layer], stage='c3', before_block=-1)]
    return cfg


def config_of_run(layer: str, rate: float, seed: int, epochs: int) -> Config:
    """Config: one training."""
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


def reach(cfg: Config, size: int = 512) -> int:
    """Measure how many pixels away a feature of the pyramid can see, in an image of ``size``.

    An image column of NaN makes all features that depend on it NaN.
    """
    init_default_scope('mmdet')
    pyramid = nn.Sequential(MODELS.build(cfg.model.backbone), MODELS.build(cfg.model.neck)).eval()
    farthest = 0.0
    with torch.no_grad():
        for column in range(size // 2, size // 2 + 8):
            x = torch.zeros(1, 3, 64, size)
            x[..., column] = float('nan')
            for level in pyramid(x):
                stride = size / level.shape[3]
                columns = level.isnan().any(dim=1)[0].any(dim=0).nonzero().flatten()
                distances = ((columns + 0.5) * stride - 0.5 - column).abs()
                farthest = max(farthest, float(distances.max()))
    return round(farthest)


def train(layer: str, rate: float, seed: int, epochs: int) -> dict[str, float]:
    """Train one detector; return METRICS and ``step_s``, median seconds per iteration.

    ``rate`` is the layer's learning rate relative to the network's.
    """
    work_dir = Path('work_dirs/far_cue', f'{layer}-{rate:g}-{seed}')
    work_dir.mkdir(parents=True, exist_ok=True)
    config = work_dir.parent / f'{work_dir.name}.py'
    config_of_run(layer, rate, seed, epochs).dump(config)
    run_tool('train.py', config, '--work-dir', work_dir)
    training, validation = read_log(work_dir)
    metrics = {name: validation[-1][f'coco/{name}'] for name in METRICS}
    return {**metrics, 'step_s': statistics.median(record['time'] for record in training)}


def table(report: dict) -> str:
    """Return one row per layer and learning rate."""
    rows = []
    for layer in LAYERS:
        for rate in report['rates'] if layer != 'none' else report['rates'][:1]:
            prefix = run_name((layer, rate, ''))
            runs = [run for name, run in report['runs'].items() if name.startswith(prefix)]
            cells = [mean_and_spread([run[metric] for run in runs]) for metric in METRICS]
            learnt = sum(run['bbox_mAP_50'] > LEARNT for run in runs)
            shown = '' if layer == 'none' else f'{rate:g} x'
            rows.append([layer, shown, *cells, f'{learnt} of {len(runs)}'])
    return markdown(['layer', 'learning rate', *METRICS, 'learnt'], rows)


def main() -> None:
    """Run the study of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--output', type=Path, default=Path('far_cue.json'))
    parser.add_argument('--table', type=Path, metavar='JSON', help='print stored results only')
    parser.add_argument('--quick', action='store_true', help='1 seed, 1 epoch of 16 images')
    parser.add_argument('--layer', nargs='+', choices=LAYERS, default=list(LAYERS))
    parser.add_argument('--rates', type=float, nargs='+', default=[1.0, 10.0])
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--epochs', type=int, default=6, help='of 50 iterations (default: 6)')
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text(encoding='utf-8'))))
        return
    images = (400, 100)
    if args.quick:
        images, args.seeds, args.epochs, args.rates = (16, 4), 1, 1, [1.0]
    make_far_cue(DATA, *images)
    report = {'epochs': args.epochs, 'rates': args.rates}
    report.update(reach=reach(config_of('none')), distance=MIN_DISTANCE)
    report['runs'] = stored_runs(report, args.output, 'epochs')
    print(
        f'without a layer a feature reaches {report["reach"]} pixels, a proposal at most '
        f'{BEYOND_SHAPE} beyond its shape; the cue is at least {MIN_DISTANCE} away'
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
