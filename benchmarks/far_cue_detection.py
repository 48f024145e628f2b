"""Does a detector learn classes that something far away decides? With and without a layer.

    python benchmarks/far_cue_detection.py --output far_cue_detection.json

Draws the far-cue images, trains a small Mask R-CNN (configs/demo/*_toy-far-cue.py) for every
layer and seed by tools/train.py, and prints a table of COCO metrics. Without a layer the shapes
can be found but their class only guessed. Each finished run is stored at once; the same command
goes on where it stopped.
"""

import os
import sys
from os.path import abspath, dirname

# A script's own folder comes first on the path, and `operator.py` in this one would hide the
# standard library's.
sys.path[0] = dirname(dirname(abspath(__file__)))

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ThreadPoolExecutor, as_completed  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.measure import machine, markdown  # noqa: E402
from polynl_mmdet.datasets.toy.far_cue import MIN_DISTANCE, make_toy_far_cue  # noqa: E402
from polynl_mmdet.errors import InputError, one_line_errors  # noqa: E402

ROOT = Path(sys.path[0])
LAYERS = {'none': '', 'PolyNL': '-polynl', 'NonLocal2d': '-nl', 'ContextBlock': '-gcb'}
METRICS = ('bbox_mAP', 'bbox_mAP_50', 'segm_mAP', 'segm_mAP_50')
# Pixels that a proposal which counts as right can reach beyond its shape (its own size at most),
# and a cell of interpolation.
BEYOND_SHAPE = 32 + 8


def config_of(layer: str) -> Path:
    """Path: the config that trains a layer of LAYERS."""
    place = LAYERS[layer] and f'{LAYERS[layer]}-site-c3'
    return ROOT / 'configs' / 'demo' / f'mask-rcnn_r18{place}_fpn_toy-far-cue.py'


class _Pyramid(nn.Module):
    """Backbone and neck of a detector."""

    def __init__(self, model: dict) -> None:
        super().__init__()
        init_default_scope('mmdet')
        self.backbone = MODELS.build(model['backbone'])
        self.neck = MODELS.build(model['neck'])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.neck(self.backbone(x))


def reach(config: Path, size: int = 512) -> int:
    """How far from a feature's place in the image a pixel can be that it depends on.

    An image column of NaN makes all features that see it NaN, through any convolution, pooling
    and activation.

    Args:
        config (Path): A detector's config with backbone and neck.
        size (int): Side of the image, more than twice the result. Defaults to 512.

    Returns:
        int: Pixels, the most over the pyramid's levels.
    """
    pyramid = _Pyramid(Config.fromfile(config).model).eval()
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


def train(layer: str, seed: int, args: argparse.Namespace) -> dict:
    """Train one detector in a process of its own.

    Args:
        layer (str): A key of LAYERS.
        seed (int): Of weights and order of the images.
        args (argparse.Namespace): The command line.

    Returns:
        dict: METRICS of the last epoch, between 0 and 1, ``step_s`` (median seconds a training
        step) and ``minutes``.

    Raises:
        InputError: Training failed.
    """
    work_dir = args.work_dir / f'{layer}-{seed}'
    data = args.data.resolve()
    options = [f'{part}_dataloader.dataset.data_root={data}/' for part in ('train', 'val', 'test')]
    options += [
        f'{part}_evaluator.ann_file={data}/annotations/instances_val.json'
        for part in ('val', 'test')
    ]
    options += [f'randomness.seed={seed}', 'default_hooks.checkpoint.interval=1000']
    options += [f'train_cfg.max_epochs={args.epochs}', f'train_cfg.val_interval={args.epochs}']
    options += [f'param_scheduler.1.{key}={args.epochs}' for key in ('T_max', 'end')]
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config_of(layer))]
    command += ['--work-dir', str(work_dir), '--cfg-options', *options]
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    started = time.monotonic()
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ['no output']
        raise InputError(f'training {layer}, seed {seed}', lines[-1], f'see {work_dir}')
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in logs[-1].read_text(encoding='utf-8').splitlines()]
    last = next(record for record in reversed(records) if 'coco/segm_mAP' in record)
    times = [record['time'] for record in records if 'loss' in record]
    result = {name: last[f'coco/{name}'] for name in METRICS}
    result['step_s'] = statistics.median(times)
    result['minutes'] = (time.monotonic() - started) / 60
    return result


def table(results: dict) -> str:
    """str: Markdown, a row a layer, mean and spread over the seeds."""
    rows = []
    for layer in LAYERS:
        runs = [r for name, r in results['runs'].items() if name.split()[0] == layer]
        if not runs:
            rows.append([layer, *['not run'] * (len(METRICS) + 2)])
            continue
        cells = []
        for metric in METRICS:
            values = [run[metric] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f'{statistics.mean(values):.3f} ± {spread:.3f}')
        taken = statistics.median(run['step_s'] for run in runs)
        rows.append([layer, *cells, f'{taken:.2f}', str(len(runs))])
    return markdown(['layer', *METRICS, 's a step', 'seeds'], rows)


def parse_args() -> argparse.Namespace:
    """argparse.Namespace: the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--output', type=Path, default=Path('far_cue_detection.json'))
    parser.add_argument('--data', type=Path, default=Path('data/toy_far_cue'), help='images')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/far_cue_detection'))
    parser.add_argument('--layer', nargs='+', choices=LAYERS, default=list(LAYERS))
    parser.add_argument('--seeds', type=int, default=3, help='runs a layer (default: 3)')
    parser.add_argument('--epochs', type=int, default=6, help='50 steps each (default: 6)')
    parser.add_argument('--workers', type=int, default=2, help='runs at a time (default: 2)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads a run (default: 1)')
    parser.add_argument('--minutes', type=float, default=1e6, help='start no run after these')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Prepare data and results, run what is left, print the table."""
    for name in ('seeds', 'epochs', 'workers', 'threads'):
        if getattr(args, name) < 1:
            raise InputError(f'--{name}', str(getattr(args, name)), 'accepted: 1 or more')
    if not (args.data / 'annotations').exists():
        make_toy_far_cue(args.data, 400, 100)
    results = {
        'command': ' '.join(['python benchmarks/far_cue_detection.py', *sys.argv[1:]]),
        'machine': dict(machine('cpu'), threads=args.threads, workers=args.workers),
        'epochs': args.epochs,
        'reach': reach(config_of('none')),
        'distance': MIN_DISTANCE,
        'runs': {},
    }
    if results['reach'] + BEYOND_SHAPE >= MIN_DISTANCE:
        raise InputError(str(config_of('none')), f'reaches {results["reach"]} pixels')
    if args.output.exists():
        stored = json.loads(args.output.read_text(encoding='utf-8'))
        if stored['epochs'] != args.epochs:
            raise InputError(str(args.output), f'is of {stored["epochs"]} epochs', 'give --output')
        results['runs'] = stored['runs']
    print(
        f'without a layer a feature reaches {results["reach"]} pixels, a proposal at most '
        f'{BEYOND_SHAPE} beyond its shape; the cue is {MIN_DISTANCE} or more away',
        flush=True,
    )
    jobs = [(layer, seed) for seed in range(args.seeds) for layer in args.layer]
    jobs = [job for job in jobs if f'{job[0]} {job[1]}' not in results['runs']]
    until = time.monotonic() + 60 * args.minutes

    def run(job: tuple[str, int]) -> dict | None:
        return train(*job, args) if time.monotonic() < until else None

    with ThreadPoolExecutor(args.workers) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(futures):
            if future.result() is None:
                continue
            layer, seed = futures[future]
            results['runs'][f'{layer} {seed}'] = future.result()
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
            print(f'{layer}, seed {seed}: {future.result()}', flush=True)
    print('\n' + table(results))


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
