"""Compare trainings of several detectors and seeds: AP, difference, interval, size, time.

Reads the work folders of tools/train.py. A group is NAME:FOLDER, where FOLDER may hold wildcards;
folders without a name are grouped by their config. Groups are compared with the first one, seed by
seed. The interval is Student's t over the paired seeds: it does not cover other test images.

Examples:
    python tools/compare_runs.py 'none:work_dirs/none_seed*' 'polynl:work_dirs/polynl_seed*'
    python tools/compare_runs.py work_dirs/*_seed* --metric coco/bbox_mAP --plot ap.png
"""

from __future__ import annotations

import argparse
import glob
import runpy
import statistics
from dataclasses import dataclass
from pathlib import Path


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('groups', nargs='+', metavar='[NAME:]FOLDER')
    parser.add_argument('--metric', help='key of the AP in the log (default: the main one)')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='plot AP over the epochs')
    return parser.parse_args(args)


if __name__ == '__main__':
    parse_args()  # --help, before the slow imports

from matplotlib.figure import Figure

from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.runs import (
    ap_keys,
    config_of,
    markdown,
    mean_and_spread,
    paired_difference,
    read_log,
    show_interval,
)

BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')


@dataclass
class Run:
    """A training."""

    seed: int | None
    aps: dict[int, float]  # by epoch (or iteration)
    step_s: float  # median seconds per training iteration
    image_ms: float | None  # milliseconds per validation image
    parameters: int | None  # of the last checkpoint


def count_parameters(checkpoint: Path) -> int:
    """Count the parameters of a checkpoint's ``state_dict``, without BatchNorm's statistics."""
    weights = load_checkpoint(checkpoint)['state_dict']
    return sum(weight.numel() for name, weight in weights.items() if not name.endswith(BUFFERS))


def read_run(folder: Path, metric: str | None) -> tuple[Run, str]:
    """Read a work folder; return the run and the key of its AP, by default the log's main one."""
    training, validation = read_log(folder)
    keys = ap_keys(validation)
    if not keys and not metric:
        raise InputError(f'{folder}: no AP in the log; was the training validated?')
    metric = metric or keys[0]
    aps = {record['step']: record[metric] for record in validation if metric in record}
    if not aps:
        raise InputError(f'{folder}: no {metric!r} in the log, only {", ".join(keys)}')
    config = runpy.run_path(str(config_of(folder)))
    times = [record['time'] for record in validation if 'time' in record]
    batch = config.get('val_dataloader', {}).get('batch_size', 1)
    checkpoints = sorted(folder.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    run = Run(
        config.get('randomness', {}).get('seed'),
        aps,
        statistics.median(record['time'] for record in training),
        1e3 * statistics.median(times) / batch if times else None,
        count_parameters(checkpoints[-1]) if checkpoints else None,
    )
    return run, metric


def read_groups(words: list[str], metric: str | None) -> tuple[dict[str, list[Run]], str]:
    """Read the groups of the command line; all use the first run's metric."""
    groups: dict[str, list[Run]] = {}
    for word in words:
        name, _, pattern = word.rpartition(':')
        folders = [Path(path) for path in sorted(glob.glob(pattern)) if Path(path).is_dir()]
        if not folders:
            raise InputError(f'{pattern}: no such work folder')
        for folder in folders:
            run, metric = read_run(folder, metric)
            groups.setdefault(name or config_of(folder).stem, []).append(run)
    return groups, metric


def pairs(runs: list[Run], baseline: list[Run]) -> list[tuple[Run, Run]]:
    """Pair runs by seed; by their order if a seed is unknown or occurs twice."""
    by_seed = [{run.seed: run for run in group} for group in (runs, baseline)]
    if any(None in group or len(group) < len(of) for group, of in zip(by_seed, (runs, baseline))):
        return list(zip(runs, baseline))
    return [(run, by_seed[1][seed]) for seed, run in by_seed[0].items() if seed in by_seed[1]]


def table(groups: dict[str, list[Run]]) -> str:
    """Return a Markdown table with one row per group."""
    first, *_ = groups
    header = ['run', 'seeds', 'best AP', 'last AP', 'difference [95 %]']
    rows = []
    for name, runs in groups.items():
        last = [run.aps[max(run.aps)] for run in runs]
        paired = pairs(runs, groups[first]) if name != first else []
        values = [[run.aps[max(run.aps)] for run in side] for side in zip(*paired)]
        row = [name, str(len(runs)), mean_and_spread([max(run.aps.values()) for run in runs])]
        row += [
            mean_and_spread(last),
            show_interval(*paired_difference(*values)) if paired else '',
            _median([run.parameters for run in runs], '{:,.0f}'),
            _median([run.step_s for run in runs], '{:.3f}'),
            _median([run.image_ms for run in runs], '{:.1f}'),
        ]
        rows.append(row)
    return markdown([*header, 'parameters', 's/iteration', 'ms/image'], rows)


def _median(values: list[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(statistics.median(known)) if known else '-'


def plot(groups: dict[str, list[Run]], metric: str, out: Path) -> None:
    """Plot AP over the epochs: the mean over the seeds, and their range."""
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axis = figure.subplots()
    for name, runs in groups.items():
        steps = sorted(set.intersection(*(set(run.aps) for run in runs)))
        values = [[run.aps[step] for run in runs] for step in steps]
        (line,) = axis.plot(
            steps, [statistics.mean(v) for v in values], marker='o', label=f'{name} ({len(runs)})'
        )
        axis.fill_between(
            steps, *zip(*((min(v), max(v)) for v in values)), alpha=0.2, color=line.get_color()
        )
    axis.set(xlabel='epoch', ylabel=metric)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(out, dpi=110)


def main(args: argparse.Namespace) -> None:
    """Print the table of the command line's groups."""
    groups, metric = read_groups(args.groups, args.metric)
    first, *others = groups
    print(f'{metric}, mean ± standard deviation over the seeds\n\n{table(groups)}')
    if others:
        print(f'\ndifference: last AP minus that of {first}, paired by seed')
    if args.plot:
        plot(groups, metric, args.plot)


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
