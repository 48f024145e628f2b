"""Which dependencies can each non-local layer learn that convolutions cannot?

    python -m studies.long_range.run --output full.json             # hours
    python -m studies.long_range.run --short --output short.json    # half an hour on two cores
    python -m studies.long_range.run --quick                        # seconds: does it run?
    python -m studies.long_range.run --table studies/long_range/results/short.json

All layers get the same trunk, head, data, steps, learning rates to choose from and seeds. The same
command continues an interrupted study.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler

from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.runs import markdown, mean_and_spread
from studies.long_range.model import LAYERS, Probe, build_trunk, layer_parameters, receptive_field
from studies.long_range.tasks import NO_LABEL, TASKS, deciding_distance, draw
from studies.runs import run_all, run_name, stored_runs

FULL = dict(size=24, batch=16, steps=2000, rates=[1e-3, 3e-3, 1e-2], seeds=5, images=2048)
SHORT = dict(size=18, batch=16, steps=300, rates=[3e-3, 1e-2], seeds=5, images=512)
QUICK = dict(size=18, batch=16, steps=3, rates=[3e-3], seeds=1, images=64)
SEARCH_SEED = 1000  # of the runs that choose a learning rate


def train(task: str, layer: str, rate: float, seed: int, settings: dict) -> dict[str, float]:
    """Train one model by Adam (5 % linear warm-up, cosine decay), and test it on new images.

    Returns:
        dict: ``accuracy`` (0 to 1), ``loss`` (mean of the last 20) and ``step_ms`` (median).
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Probe(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    steps, warm_up = settings['steps'], max(settings['steps'] // 20, 1)
    warm = lr_scheduler.LinearLR(optimizer, 0.05, total_iters=warm_up)
    decay = lr_scheduler.CosineAnnealingLR(optimizer, max(steps - warm_up, 1))
    schedule = lr_scheduler.SequentialLR(optimizer, [warm, decay], milestones=[warm_up])
    rng = torch.Generator().manual_seed(2 * seed)
    losses, times = [], []
    for _ in range(steps):
        images, labels = draw(task, settings['batch'], settings['size'], rng)
        before = time.perf_counter()
        loss = F.cross_entropy(model(images), labels, ignore_index=NO_LABEL)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        times.append(time.perf_counter() - before)
        losses.append(loss.item())
    return {
        'accuracy': accuracy(model, task, settings, torch.Generator().manual_seed(2 * seed + 1)),
        'loss': statistics.mean(losses[-20:]),
        'step_ms': 1e3 * statistics.median(times),
    }


@torch.no_grad()
def accuracy(model: Probe, task: str, settings: dict, rng: torch.Generator) -> float:
    """float: share of labelled pixels with the right class, over new images."""
    model.eval()
    right = total = 0
    for _ in range(-(-settings['images'] // 64)):
        images, labels = draw(task, 64, settings['size'], rng)
        known = labels != NO_LABEL
        right += int((model(images).argmax(dim=1) == labels)[known].sum())
        total += int(known.sum())
    return right / total


def best_rate(task: str, layer: str, report: dict) -> float | None:
    """float or None: the learning rate with the best accuracy, once all were searched."""
    names = {
        rate: run_name((task, layer, rate, SEARCH_SEED)) for rate in report['settings']['rates']
    }
    if any(name not in report['runs'] for name in names.values()):
        return None
    return max(names, key=lambda rate: (report['runs'][names[rate]]['accuracy'], -rate))


def jobs(report: dict) -> list[tuple[str, str, float, int]]:
    """Trainings that are left and can start: the search first, then seed by seed."""
    settings = report['settings']
    cells = [(task, layer) for task in report['tasks'] for layer in report['layers']]
    every = [(*cell, rate, SEARCH_SEED) for cell in cells for rate in settings['rates']]
    for seed in range(1, settings['seeds'] + 1):
        every += [(*c, best_rate(*c, report), seed) for c in cells if best_rate(*c, report)]
    return [job for job in every if run_name(job) not in report['runs']]


def table(report: dict) -> str:
    """Return one row per layer: parameters, ms per step, accuracy in each task."""
    rows = []
    for layer, parameters in report['layers'].items():
        cells, times = [], []
        for task in report['tasks']:
            rate = best_rate(task, layer, report)
            seeds = range(1, report['settings']['seeds'] + 1) if rate else ()
            names = [run_name((task, layer, rate, seed)) for seed in seeds]
            runs = [report['runs'][name] for name in names if name in report['runs']]
            times += [run['step_ms'] for run in runs]
            cells.append(mean_and_spread([run['accuracy'] for run in runs]))
        rows.append([layer, f'{parameters:,}', f'{statistics.median(times or [0]):.1f}', *cells])
    return markdown(['layer', 'parameters', 'ms per step', *report['tasks']], rows)


def study(settings: dict, tasks: list[str], layers: list[str], output: Path, workers: int) -> dict:
    """Run the remaining trainings of a study; return its report."""
    field, distance = receptive_field(build_trunk()), deciding_distance(settings['size'])
    if field // 2 >= distance:
        raise InputError(f'the trunk reaches {field // 2} pixels, expected less than {distance}')
    report = {
        'settings': settings,
        'receptive_field': field,
        'deciding_distance': distance,
        'tasks': tasks,
        'layers': {name: layer_parameters(name) for name in layers},
    }
    report['runs'] = stored_runs(report, output, 'settings')
    print(f'the trunk reaches {field // 2} pixels; what decides is at least {distance} away')
    pool = ProcessPoolExecutor(workers, mp_context=get_context('spawn'))
    run_all(report, output, jobs, partial(train, settings=settings), pool, workers)
    return report


def main() -> None:
    """Run the study of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--short', action='store_true', help='small images, 300 steps')
    parser.add_argument('--quick', action='store_true', help='3 steps')
    parser.add_argument('--output', type=Path, default=Path('long_range.json'))
    parser.add_argument('--table', type=Path, metavar='JSON', help='print stored results only')
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
    parser.add_argument('--task', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--layer', nargs='+', choices=LAYERS, default=list(LAYERS))
    args = parser.parse_args()
    if args.table:
        report = json.loads(args.table.read_text(encoding='utf-8'))
    else:
        settings = QUICK if args.quick else SHORT if args.short else FULL
        report = study(settings, args.task, args.layer, args.output, args.workers)
    print('\n' + table(report))


if __name__ == '__main__':
    with one_line_errors():
        main()
