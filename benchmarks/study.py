"""Runs of a study: each is stored as it ends, and what is stored is not run again."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from pathlib import Path
from threading import Lock

from mmengine.config import Config

from polynl_mmdet.errors import InputError

_reading = Lock()


def read_config(path: Path) -> Config:
    """Read a config, in one thread at a time.

    mmengine loads ``pkg_resources`` anew for each base of another package, which two threads must
    not do at once.
    """
    with _reading:
        return Config.fromfile(path)


def run_name(job: tuple) -> str:
    """Return the name of a run in the results."""
    return ' '.join(f'{part:g}' if isinstance(part, float) else str(part) for part in job)


def store(report: dict, path: Path | None) -> None:
    """Write a report as JSON, so that a stop in between leaves the former file."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix('.part')
        partial.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
        partial.replace(path)


def stored(path: Path, keys: tuple[str, ...]) -> dict:
    """Read a report that has these keys.

    Raises:
        InputError: The file is missing or none of ours.
    """
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        return {**report, **{key: report[key] for key in keys}}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(str(path), f'not a report with {", ".join(keys)} ({error!r})') from None


def take_up(report: dict, path: Path, same: str) -> dict:
    """Return the stored runs of a study.

    Args:
        report (dict): The present one.
        path (Path): The stored one, which need not exist.
        same (str): The key whose value must be the same in both.

    Raises:
        InputError: It is not the same.
    """
    if not path.exists():
        return {}
    former = stored(path, (same, 'runs'))
    if former[same] != report[same]:
        found = f'has {same} {former[same]}, this run {report[same]}'
        raise InputError(str(path), found, 'accepted: the same to go on, or another --output')
    return former['runs']


def run_all(
    report: dict,
    path: Path,
    jobs: Callable[[dict], list[tuple]],
    train: Callable[..., dict],
    pool: Executor,
    workers: int,
) -> None:
    """Run what is left of a study.

    Args:
        report (dict): Gets the results as ``runs``, by :func:`run_name`.
        path (Path): Where it is stored after each run.
        jobs (Callable): Gives the jobs whose results the report lacks and that can start.
        train (Callable): Gives the result of a job.
        pool (Executor): Where it is called.
        workers (int): How many run at a time.
    """
    running = {}
    with pool:
        while True:
            waiting = [job for job in jobs(report) if job not in running.values()]
            for job in waiting[: workers - len(running)]:
                running[pool.submit(train, *job)] = job
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name = run_name(running.pop(done))
                report['runs'][name] = done.result()
                store(report, path)
                shown = (f'{key} {value:.3g}' for key, value in done.result().items())
                print(f'{name}: {", ".join(shown)}', flush=True)


def mean_and_spread(values: list[float]) -> str:
    """Return the mean and the standard deviation, or that nothing was run."""
    if not values:
        return 'not run'
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f'{statistics.mean(values):.3f} ± {spread:.3f}'
