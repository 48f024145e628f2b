"""What each non-local layer can and cannot do, on tasks that a local trunk cannot solve.

    python -m studies.long_range.run --quick --output quick.json   # at most half an hour, two cores
    python -m studies.long_range.run --output full.json            # hours

Every layer gets the same trunk, head, data, steps, learning rates to choose from and seeds. Each
finished run is stored at once; the same command goes on where it stopped. ``--table`` prints the
tables of a stored file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.measure import machine, markdown
from polynl_mmdet.errors import InputError, one_line_errors
from studies.long_range.model import (
    LAYERS,
    MAX_PARAMETERS,
    Probe,
    build_trunk,
    layer_parameters,
    receptive_field,
)
from studies.long_range.tasks import NO_LABEL, TASKS, deciding_distance, draw
from studies.runs import mean_and_spread, run_all, run_name, store, stored, take_up

QUICK = dict(size=18, batch=16, steps=300, rates=[3e-3, 1e-2], seeds=5, images=512)
FULL = dict(size=24, batch=16, steps=2000, rates=[1e-3, 3e-3, 1e-2], seeds=5, images=2048)
SEARCH_SEED = 1000  # Of the runs that choose a learning rate; tests use other data.


def train(task: str, layer: str, rate: float, seed: int, settings: dict) -> dict:
    """Train one model and test it on images that it has not seen.

    Args:
        task (str): A key of TASKS.
        layer (str): A key of LAYERS.
        rate (float): Highest learning rate of Adam; 5 % linear warm-up, then a cosine to 0.
        seed (int): Of weights, training images and test images.
        settings (dict): QUICK, FULL or the like.

    Returns:
        dict: ``accuracy`` over the labelled pixels, last ``loss`` (mean of 20 steps) and median
        milliseconds a step, ``step_ms``.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Probe(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    steps, warm_up = settings['steps'], max(settings['steps'] // 20, 1)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps - warm_up, 1)),
        ],
        milestones=[warm_up],
    )
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
    """float: share of labelled pixels that get their class, over new images."""
    model.eval()
    right = total = 0
    for _ in range(-(-settings['images'] // 64)):
        images, labels = draw(task, 64, settings['size'], rng)
        known = labels != NO_LABEL
        right += int((model(images).argmax(dim=1) == labels)[known].sum())
        total += int(known.sum())
    return right / total


def best_rate(task: str, layer: str, results: dict) -> float:
    """float: the learning rate with the best accuracy in the search; the lower one of equals."""
    return max(
        results['settings']['rates'],
        key=lambda rate: (
            results['runs'][run_name((task, layer, rate, SEARCH_SEED))]['accuracy'],
            -rate,
        ),
    )


def open_jobs(results: dict) -> list[tuple[str, str, float, int]]:
    """Runs that are left and can start: the search first, then seed by seed."""
    settings, runs = results['settings'], results['runs']
    cells = [(task, layer) for task in results['tasks'] for layer in results['layers']]
    search = [(*cell, rate, SEARCH_SEED) for cell in cells for rate in settings['rates']]
    left = [job for job in search if run_name(job) not in runs]
    searching = {job[:2] for job in left}
    for seed in range(1, settings['seeds'] + 1):
        ready = [cell for cell in cells if cell not in searching]
        jobs = [(*cell, best_rate(*cell, results), seed) for cell in ready]
        left += [job for job in jobs if run_name(job) not in runs]
    return left


def table(results: dict) -> str:
    """Return a row a layer: parameters, ms a step, mean and spread of each task."""
    rows = []
    for layer, parameters in results['layers'].items():
        cells, times = [], []
        for task in results['tasks']:
            found = finished(task, layer, results)
            times += [run['step_ms'] for run in found]
            short = '' if len(found) == results['settings']['seeds'] else f' ({len(found)})'
            cells.append(mean_and_spread([run['accuracy'] for run in found]) + short * bool(found))
        taken = f'{statistics.median(times):.1f}' if times else ''
        rows.append([layer, f'{parameters:,}', taken, *cells])
    return markdown(['layer', 'parameters', 'ms a step', *results['tasks']], rows)


def finished(task: str, layer: str, results: dict) -> list[dict]:
    """Return the stored runs of the test seeds at the chosen learning rate."""
    search = [run_name((task, layer, r, SEARCH_SEED)) for r in results['settings']['rates']]
    if any(name not in results['runs'] for name in search):
        return []
    rate = best_rate(task, layer, results)
    seeds = range(1, results['settings']['seeds'] + 1)
    names = [run_name((task, layer, rate, seed)) for seed in seeds]
    return [results['runs'][name] for name in names if name in results['runs']]


def study(settings: dict, tasks: list[str], layers: list[str], output: Path, workers: int) -> dict:
    """Run what is left of a study; return its report."""
    field, distance = receptive_field(build_trunk()), deciding_distance(settings['size'])
    parameters = {name: layer_parameters(name) for name in layers}
    if max(parameters.values()) > MAX_PARAMETERS or field // 2 >= distance:
        raise InputError('studies/long_range/model.py', 'a bound of the study does not hold')
    report = {
        'command': ' '.join(['python -m studies.long_range.run', *sys.argv[1:]]),
        'machine': dict(machine('cpu'), threads=1, workers=workers),
        'settings': settings,
        'receptive_field': field,
        'deciding_distance': distance,
        'tasks': tasks,
        'layers': parameters,
    }
    report['runs'] = take_up(report, output, 'settings')
    print(
        f'receptive field of the trunk: {field} x {field} pixels, so it reaches {field // 2}; '
        f'what decides a label is {distance} or more away\n'
        f'{settings}, layers of at most {MAX_PARAMETERS:,} parameters',
        flush=True,
    )
    pool = ProcessPoolExecutor(workers, mp_context=get_context('spawn'))
    run_all(report, output, open_jobs, partial(train, settings=settings), pool, workers)
    store(report, output)
    return report


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quick', action='store_true', help='small images, few steps')
    parser.add_argument('--output', type=Path, default=Path('long_range.json'), help='JSON file')
    parser.add_argument('--workers', type=int, default=2, help='processes (default: 2)')
    parser.add_argument('--task', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--layer', nargs='+', choices=LAYERS, default=list(LAYERS))
    parser.add_argument('--table', action='store_true', help='print the stored results and stop')
    args = parser.parse_args()
    if args.table:
        report = stored(args.output, ('settings', 'runs', 'tasks', 'layers'))
    else:
        settings = QUICK if args.quick else FULL
        report = study(settings, args.task, args.layer, args.output, args.workers)
    print('\n' + table(report))


if __name__ == '__main__':
    with one_line_errors():
        main()
