"""Read what mmengine logged of a training, and compare runs with several seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import t

from polynl_mmdet.errors import InputError


def read_log(work_dir: Path) -> tuple[list[dict], list[dict]]:
    """Read the losses and the validation results of a training and its resumes.

    Returns:
        tuple: Training records (``step`` counts iterations, ``loss``, ``time``, ...) and validation
        records (``step`` counts epochs, or iterations in an iteration-based training), by step.
    """
    training: dict[int, dict] = {}
    validation: dict[int, dict] = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            record = json.loads(line)
            (training if 'loss' in record else validation)[record['step']] = record
    if not training:
        raise InputError(f'{work_dir}: no training log */vis_data/scalars.json with losses')
    return tuple([rows[step] for step in sorted(rows)] for rows in (training, validation))


def config_of(work_dir: Path) -> Path:
    """Return the config that a training wrote into its folder."""
    configs = sorted(work_dir.glob('*.py'))
    if len(configs) != 1:
        raise InputError(f'{work_dir}: got {len(configs)} configs *.py, expected 1')
    return configs[0]


def ap_keys(validation: list[dict]) -> list[str]:
    """Return the names of the APs in validation records, the main one first.

    These end in ``_mAP``, ``/mAP`` or ``/AP`` or begin with ``wider_face/``. Masks come before
    boxes, WIDER FACE's Hard before Easy and Medium.
    """
    names = dict.fromkeys(name for record in validation for name in record)
    ends = ('_mAP', '/mAP', '/AP')
    found = [name for name in names if name.endswith(ends) or name.startswith('wider_face/')]
    return sorted(found, key=lambda name: ('segm' not in name, 'hard' not in name))


def mean_and_spread(values: Sequence[float]) -> str:
    """Return ``mean ± standard deviation``, one value alone, or '-' for none."""
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.3f}'
    return f'{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}'


def paired_difference(
    values: Sequence[float], baseline: Sequence[float]
) -> tuple[float, float, float]:
    """Mean difference of paired runs and its 95 % Student t interval, nan for fewer than two."""
    differences = [value - other for value, other in zip(values, baseline)]
    count, mean = len(differences), statistics.mean(differences)
    if count < 2:
        return mean, math.nan, math.nan
    half = t.ppf(0.975, count - 1) * statistics.stdev(differences) / count**0.5
    return mean, mean - half, mean + half


def show_interval(mean: float, low: float, high: float) -> str:
    """Return ``mean [low, high]``, or the mean alone if there is no interval."""
    return f'{mean:+.3f}' if math.isnan(low) else f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]'


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: first column left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        right = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return '| ' + ' | '.join([cells[0].ljust(widths[0]), *right]) + ' |'

    dashes = ['-' * (widths[0] + 2), *('-' * (width + 1) + ':' for width in widths[1:])]
    return '\n'.join([line(header), '|' + '|'.join(dashes) + '|', *map(line, rows)])
