"""Trainings of a study: each result is stored at once, and stored ones are not run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from pathlib import Path
from threading import Lock

from mmengine.config import Config

from polynl_mmdet.errors import InputError

ROOT = Path(__file__).parents[1]
_reading = Lock()


def read_config(path: Path) -> Config:
    """Read a config; mmengine is not thread-safe here."""
    with _reading:
        return Config.fromfile(path)


def run_tool(name: str, *args: object) -> None:
    """Run a tool of this project in another process, on one core; its last line is the error."""
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / name), *map(str, args)],
        env=dict(os.environ, OMP_NUM_THREADS='1'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ['no output'])[-1]
        raise InputError(f'{name} {" ".join(map(str, args))}: {last}')


def run_name(job: tuple) -> str:
    """Return the name of a training in the results."""
    return ' '.join(f'{part:g}' if isinstance(part, float) else str(part) for part in job)


def store(report: dict, path: Path) -> None:
    """Write a report as JSON; an interruption leaves the previous file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.part')
    partial.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    partial.replace(path)


def stored_runs(report: dict, path: Path, same: str) -> dict:
    """Return the stored runs of a study, if any; they must have the same value of a key."""
    if not path.exists():
        return {}
    former = json.loads(path.read_text(encoding='utf-8'))
    if former[same] != report[same]:
        raise InputError(f'{path}: got {same} {former[same]}, expected {report[same]}')
    return former['runs']


def run_all(
    report: dict,
    path: Path,
    jobs: Callable[[dict], list[tuple]],
    train: Callable[..., dict],
    pool: Executor,
    workers: int,
) -> None:
    """Run a study's remaining trainings, and store the report after each.

    ``jobs`` gives those that the report's ``runs`` lack and that can start, ``train`` the result of
    one, which is called in the pool.
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
