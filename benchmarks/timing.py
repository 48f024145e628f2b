"""Times in interleaved rounds, memory kept for backward, peak memory."""

from __future__ import annotations

import json
import os
import platform
import random
import time
from pathlib import Path
from typing import Callable

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # quiet profiler; read when torch is imported

import torch

_random = random.Random(0)


def interleaved_times(
    functions: dict[str, Callable[[], object]],
    device: str,
    budget: float = 2.0,
    rounds: int = 5,
    warm_up: int = 2,
) -> dict[str, list[float]]:
    """Time each function once per round, in a new random order.

    Interleaving spreads what else the machine does over all functions alike; random orders do the
    same with what each leaves behind for the next: full caches, memory kept by the allocator.

    Args:
        functions (dict): Name to a function without arguments.
        device (str): 'cpu' or 'cuda:0' for example.
        budget (float): Seconds after which no further round starts.
        rounds (int): Min rounds.
        warm_up (int): Rounds before that, not counted.

    Returns:
        dict[str, list[float]]: Name to the seconds of every round.
    """
    for _ in range(warm_up):
        for function in functions.values():
            timed(function, device)
    times = {name: [] for name in functions}
    order = list(functions.items())
    start = time.perf_counter()
    while len(next(iter(times.values()))) < rounds or time.perf_counter() - start < budget:
        _random.shuffle(order)
        for name, function in order:
            times[name].append(timed(function, device))
    return times


def timed(function: Callable[[], object], device: str) -> float:
    """Return the seconds of one call; on CUDA those between two events on the current stream."""
    if torch.device(device).type != 'cuda':
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1e3


def bytes_kept(forward: Callable[[], torch.Tensor], exclude: list[torch.Tensor]) -> int:
    """Return the bytes that a forward pass keeps for backward, ``exclude`` (parameters) aside."""
    excluded = {t.untyped_storage().data_ptr() for t in exclude}
    kept = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in excluded:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        forward()
    return sum(kept.values())


def peak_bytes(function: Callable[[], object], device: str) -> int:
    """Return the max bytes allocated during a call, minus those before; BLAS's scratch aside."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def machine(device: str) -> dict[str, object]:
    """Return what was measured on: processor or GPU, threads, versions."""
    name = platform.processor() or platform.machine()
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    elif Path('/proc/cpuinfo').is_file():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        models = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
        name = f'{models[0]}, {len(models)} cores' if models else name
    return {
        'device': name,
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
    }


def write_json(report: dict, path: Path | None) -> None:
    """Write a report, unless ``path`` is None."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + '\n')


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown, first column left, others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return '| ' + ' | '.join([cells[0].ljust(widths[0]), *others]) + ' |'

    ruler = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
    return '\n'.join([line(header), line(ruler), *map(line, rows)])
