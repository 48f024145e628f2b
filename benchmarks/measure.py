"""How things are timed and weighed here: interleaved rounds, bytes kept, peak memory."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable

import torch

_draw = random.Random(0)  # One for all shapes: none of them repeats another's orders.


def interleaved_times(
    functions: dict[str, Callable[[], object]],
    device: str,
    budget: float = 2.0,
    rounds: int = 5,
    warm_up: int = 2,
) -> dict[str, list[float]]:
    """Time each function in every round, all of them called once, in an order drawn anew.

    Taking turns spreads whatever else the machine does over all rivals alike, and other orders what
    each leaves behind for the next: full caches, memory given back or kept by the allocator.

    Args:
        functions (dict): Name to a function without arguments.
        device (str): As ``torch.device`` takes it, 'cpu' or 'cuda:0' for example.
        budget (float): Seconds after which no further round starts.
        rounds (int): Rounds to run at least, whatever they take.
        warm_up (int): Rounds before that, not counted.

    Returns:
        dict[str, list[float]]: Name to the seconds of every round.
    """
    times = {name: [] for name in functions}
    for _ in range(warm_up):
        for function in functions.values():
            timed(function, device)
    order = list(functions.items())
    started = time.perf_counter()
    while len(next(iter(times.values()))) < rounds or time.perf_counter() - started < budget:
        _draw.shuffle(order)
        for name, function in order:
            times[name].append(timed(function, device))
    return times


def timed(function: Callable[[], object], device: str) -> float:
    """Call a function once, and return the seconds that it took.

    On CUDA they are the time between two events on the current stream, which is waited for.

    Args:
        function (Callable): Without arguments.
        device (str): Where it works.

    Returns:
        float: Seconds.
    """
    if torch.device(device).type != 'cuda':
        before = time.perf_counter()
        function()
        return time.perf_counter() - before
    with torch.cuda.device(device):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        function()
        after.record()
        after.synchronize()
    return before.elapsed_time(after) / 1e3


def bytes_kept(forward: Callable[[], torch.Tensor], aside: list[torch.Tensor]) -> int:
    """Return the bytes that one forward pass keeps for the backward pass.

    Every tensor that autograd saves is seen through ``torch.autograd.graph.saved_tensors_hooks``;
    memory that several of them share counts once, and that of ``aside`` (the parameters) not at
    all. The input counts where it is saved.

    Args:
        forward (Callable): Gives the output, with gradients enabled.
        aside (list[torch.Tensor]): What is not counted.

    Returns:
        int: Bytes.
    """
    excluded = {t.untyped_storage().data_ptr() for t in aside}
    kept: dict[int, int] = {}

    def see(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in excluded:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(see, lambda t: t):
        forward()
    return sum(kept.values())


def peak_bytes(function: Callable[[], object], device: str) -> int:
    """Return the most bytes that PyTorch's allocator held during one call, above those before.

    On CUDA as ``torch.cuda.max_memory_allocated`` says. On a CPU the profiler's record of every
    allocation and release is added up; scratch memory inside the BLAS library is not in it.

    Args:
        function (Callable): Called once.
        device (str): Where it works.

    Returns:
        int: Bytes.
    """
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
    """Return what the figures were taken on, for the JSON file and the table's heading."""
    name = platform.processor() or platform.machine()
    flags = {}
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
        # Whether float32 products, and float32 convolutions, may round their operands to TF32.
        flags = {
            'float32 products': torch.get_float32_matmul_precision(),
            'TF32 convolutions': torch.backends.cudnn.allow_tf32,
        }
    else:
        try:
            with open('/proc/cpuinfo', encoding='utf-8') as file:
                models = [line.split(':')[1].strip() for line in file if 'model name' in line]
            name = f'{models[0]}, {len(models)} cores' if models else name
        except OSError:
            pass
    return {
        'device': name,
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'python': platform.python_version(),
        **flags,
    }


def fitted_exponent(sizes: list[float], values: list[float]) -> float:
    """Return the slope of log(value) over log(size), by least squares."""
    xs = torch.tensor(sizes, dtype=torch.float64).log()
    ys = torch.tensor(values, dtype=torch.float64).log()
    xs, ys = xs - xs.mean(), ys - ys.mean()
    return float((xs * ys).sum() / xs.square().sum())


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown, first column left, others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return '| ' + ' | '.join([cells[0].ljust(widths[0]), *others]) + ' |'

    dashes = ['-' * (widths[0] + 2), *('-' * (width + 1) + ':' for width in widths[1:])]
    ruler = '|' + '|'.join(dashes) + '|'
    return '\n'.join([line(header), ruler, *(line(row) for row in rows)])
