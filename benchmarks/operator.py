"""Time and memory of Poly-NL beside other layers and beside bare matrix products.

    python benchmarks/operator.py --threads 2 --output operator.json
    python benchmarks/operator.py --threads 2 --scaling --output scaling.json --plot scaling.png
    python benchmarks/operator.py --table operator.json more.json   # of what was measured before

Prints tables in Markdown and writes what was measured as JSON. Needs torch alone: rows of layers
that are not installed drop out and are named. ``--quick`` is a check that it runs.
"""

from __future__ import annotations

import sys
from os.path import abspath, dirname

# A script's own folder comes first on the path, and this one would hide the standard library's
# `operator` from whatever is imported next.
sys.path[0] = dirname(dirname(abspath(__file__)))

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import median  # noqa: E402

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # read once, when torch is imported

import torch  # noqa: E402

from benchmarks import operator_tables, rivals  # noqa: E402
from benchmarks.measure import (  # noqa: E402
    bytes_kept,
    interleaved_times,
    machine,
    markdown,
    peak_bytes,
)
from benchmarks.operator_tables import FLOOR  # noqa: E402
from benchmarks.rivals import LAST  # noqa: E402
from polynl_mmdet.errors import InputError, one_line_errors  # noqa: E402

SIZES = {'800x1344': (800, 1344), '640x640': (640, 640)}
# ResNet-50's four stages: channels after conv2 and after conv3 of a bottleneck, and the stride.
STAGES = {'conv2': (64, 128, 256, 512), 'conv3': (256, 512, 1024, 2048)}
STRIDES = (4, 8, 16, 32)
SCALING_COUNTS = (1000, 3162, 10_000, 31_623, 100_000, 316_228, 1_000_000)
SCALING_CHANNELS = (64, 256)
# Over N only what users would take is followed, and the wasteful formula not to the end.
SCALING_DROPS = ('moments', 'projections', 'auto, LN', f'auto{LAST}', 'conv2d', f'conv2d{LAST}')
FORMULA_COUNT = 100_000


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16', 'float16'])
    parser.add_argument('--input', nargs='+', choices=SIZES, default=list(SIZES))
    parser.add_argument('--stage', nargs='+', choices=STAGES, default=list(STAGES))
    parser.add_argument('--batch', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--budget', type=float, default=2.0, help='seconds of rounds a shape')
    parser.add_argument('--memory', type=float, default=6.0, help='GB that one rival may take')
    parser.add_argument('--slowest', type=float, default=8.0, help='seconds a pass may take')
    parser.add_argument('--own', action='store_true', help='leave out the layers of others')
    parser.add_argument('--scaling', action='store_true', help='time and memory over N')
    parser.add_argument('--counts', nargs='+', type=int, default=SCALING_COUNTS, metavar='N')
    parser.add_argument('--channels', nargs='+', type=int, default=SCALING_CHANNELS, metavar='C')
    parser.add_argument(
        '--sweeps',
        type=int,
        metavar='K',
        help='times that all shapes are measured, in other orders (default: 3 for --scaling, '
        'so that a machine that slows down is not taken for a slope; else 1)',
    )
    parser.add_argument('--quick', action='store_true', help='tiny shapes, one round')
    parser.add_argument('--output', type=Path, help='JSON file')
    parser.add_argument('--plot', type=Path, help='image of the scaling (needs matplotlib)')
    parser.add_argument('--table', nargs='+', type=Path, help='print the tables of JSON files')
    args = parser.parse_args()
    if args.table:
        with one_line_errors():
            report = _joined(args.table)
        _conclude(report, 'exponents' in report)
        return
    if args.plot and not args.scaling:
        parser.error('--plot: images are drawn of --scaling')
    sweeps = (3 if args.scaling else 1) if args.sweeps is None else args.sweeps
    if sweeps < 1:
        parser.error(f'--sweeps: {sweeps}, accepted: 1 or more')
    if args.threads:
        torch.set_num_threads(args.threads)
    report = {'machine': machine(args.device), 'dtype': args.dtype}
    print(f'{report["machine"]}, {args.dtype}')
    if not args.own and rivals.missing_rivals():
        print(f'left out, mmcv is not installed: {", ".join(rivals.missing_rivals())}')
    found = {shape: [] for shape in _shapes(args)}
    draw = random.Random(0)
    for sweep in range(1, sweeps + 1):
        if sweeps > 1:
            print(f'\nsweep {sweep} of {sweeps}', flush=True)
        # The last, whose tables are printed, in the given order.
        for shape in found if sweep == sweeps else draw.sample(list(found), len(found)):
            found[shape].append(measure(shape, args, weigh=not found[shape]))
            if sweep == sweeps:
                _show(shape, _merged(found[shape]))
            report['rows'] = [row for rows in found.values() if rows for row in _merged(rows)]
            _write(report, args.output)  # a long run that is stopped keeps what it has
    _conclude(report, args.scaling)
    _write(report, args.output)
    if args.plot:
        from benchmarks.scaling_plot import draw

        draw(report, args.plot)


def _conclude(report: dict, scaling: bool) -> None:
    """Print what follows from all shapes together, and put it into the report."""
    if scaling:
        report['exponents'], table = operator_tables.exponents(report['rows'])
        print(f'\nexponents over N\n\n{table}')
    else:
        report['summary'] = operator_tables.summary(report['rows'])
        print('\n' + operator_tables.overview(report['rows']))
        print('\nover the shapes\n\n' + operator_tables.summary_table(report['summary']))


def _joined(paths: list[Path]) -> dict:
    """Return the rows of several files as one report; a shape that several have, from the last."""
    by_shape = {}
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding='utf-8'))
            rows = report['rows']
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                str(path), f'cannot be read ({error!r})', 'what --output wrote'
            ) from None
        for shape in dict.fromkeys(tuple(row['shape']) for row in rows):
            by_shape[shape] = [row for row in rows if tuple(row['shape']) == shape]
    return {**report, 'rows': [row for rows in by_shape.values() for row in rows]}


def _write(report: dict, path: Path | None) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')


def _shapes(args: argparse.Namespace) -> list[tuple[int, int, int, int]]:
    if args.scaling:
        counts = (64, 256) if args.quick else args.counts
        channels = (16,) if args.quick else args.channels
        return [(1, c, 1, n) for c in channels for n in counts]
    if args.quick:
        return [(1, 16, 16, 17)]
    return [
        (batch, STAGES[stage][i], -(-SIZES[size][0] // stride), -(-SIZES[size][1] // stride))
        for size in args.input
        for stage in args.stage
        for batch in args.batch
        for i, stride in enumerate(STRIDES)
    ]


def _merged(sweeps: list[list[dict]]) -> list[dict]:
    """Return one row a rival: the median of its medians, the least of its least, and the memory of
    the first sweep."""
    merged = []
    for rows in zip(*sweeps):
        row = dict(rows[0])
        for quantity in ('forward', 'step'):
            if quantity in row:
                row[quantity] = median(r[quantity] for r in rows)
                row[f'{quantity}, least'] = min(r[f'{quantity}, least'] for r in rows)
        merged.append(row)
    return merged


def _show(shape: tuple[int, int, int, int], rows: list[dict]) -> None:
    batch, channels, height, width = shape
    print(f'\n({batch}, {channels}, {height}, {width}), N / C = {height * width / channels:.1f}\n')
    header = ['', 'forward ms', 'x floor', 'step ms', 'x floor', 'kept / x', 'peak / x']
    two, five = rows[0]['forward'], rows[0]['step']
    cells = [
        [
            row['name'],
            f'{row["forward"] * 1e3:.2f}',
            f'{row["forward"] / two:.2f}',
            f'{row["step"] * 1e3:.2f}',
            f'{row["step"] / five:.2f}',
            f'{row["kept"]:.2f}' if 'kept' in row else '',
            f'{row["peak"]:.2f}' if 'peak' in row else '',
        ]
        if 'forward' in row
        else [row['name'], row['left out'], '', '', '', '', '']
        for row in rows
    ]
    print(markdown(header, cells), flush=True)
    for row in rows:
        if 'libraries' in row:
            by = ', '.join(f'{kind} by {library}' for kind, library in row['libraries'].items())
            print(f'{row["name"]}: {by}', flush=True)


def measure(
    shape: tuple[int, int, int, int], args: argparse.Namespace, weigh: bool = True
) -> list[dict]:
    """Time and weigh everything at one shape.

    Args:
        shape (tuple): (B, C, H, W).
        args (argparse.Namespace): The command line's.
        weigh (bool): Whether memory is looked at too. Defaults to True.

    Returns:
        list[dict]: The floor first. ``forward`` and ``step`` (forward and backward), median
        seconds, and the ``least`` of each, which another process on the machine disturbs less;
        ``kept`` and ``peak`` (of a step) in multiples of the input's bytes; or why a rival was
        ``left out``.
    """
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    x = torch.randn(shape, device=args.device, dtype=dtype).requires_grad_()
    grad = torch.randn(shape, device=args.device, dtype=dtype)
    found = dict(rivals.poly_nl_rivals(shape[1], x))
    if not args.own:
        found.update(rivals.other_rivals(shape[1], x))
    if args.scaling:
        for name in SCALING_DROPS:
            del found[name]
    left_out = {name: reason for name, r in found.items() if (reason := _too_big(name, r, x, args))}
    for name in left_out:
        del found[name]
    last = [t.detach().contiguous(memory_format=torch.channels_last) for t in (x, grad)]
    last[0].requires_grad_()
    inputs = {False: (x, grad), True: tuple(last)}

    def forward(rival: rivals.Rival) -> None:
        with torch.no_grad():
            rival.forward(inputs[rival.channels_last][0])

    def step(rival: rivals.Rival) -> None:
        x, grad = inputs[rival.channels_last]
        torch.autograd.grad(rival.forward(x), (x, *rival.params), grad)

    runs = {}
    floors = [FLOOR, FLOOR + LAST] if f'auto{LAST}' in found else [FLOOR]
    for name in floors:
        products = rivals.floor_products(*inputs[name != FLOOR])
        runs.update({(name, product): run for product, run in products.items()})
    for name, rival in found.items():
        runs[name, 'forward'] = lambda r=rival: forward(r)
        runs[name, 'step'] = lambda r=rival: step(r)
    # What takes seconds would leave the quick ones few rounds: it takes turns among its like.
    slow = [key for key in runs if found.get(key[0], rivals.Rival(None, [])).quadratic]
    quick = {key: run for key, run in runs.items() if key not in slow}
    rounds = 1 if args.quick else 3 if args.scaling else 5
    budget = 0.0 if args.quick else args.budget
    times = interleaved_times(quick, args.device, budget, rounds, min(rounds, 2))
    if slow:
        times.update(
            interleaved_times({k: runs[k] for k in slow}, args.device, 0.0, min(rounds, 3), 1)
        )
    rows = [_floor_row(name, times) for name in floors]
    for name, rival in found.items():
        row = {'name': name}
        for quantity in ('forward', 'step'):
            row[quantity] = median(times[name, quantity])
            row[f'{quantity}, least'] = min(times[name, quantity])
        if weigh:
            size = x.numel() * x.element_size()
            given = inputs[rival.channels_last][0]
            row['kept'] = bytes_kept(lambda r=rival, x=given: r.forward(x), rival.params) / size
            row['peak'] = peak_bytes(lambda r=rival: step(r), args.device) / size
        rows.append(row)
    rows += [{'name': name, 'left out': reason} for name, reason in left_out.items()]
    for row in rows:
        row['shape'] = list(shape)
    return rows


def _floor_row(name: str, times: dict[tuple, list[float]]) -> dict:
    """Return a floor's times: each of its products by the library that is faster here."""
    seconds = {key[1]: values for key, values in times.items() if key[0] == name}
    row = {'name': name, 'libraries': {}}
    for suffix, value in (('', median), (', least', min)):
        by_product = {product: value(values) for product, values in seconds.items()}
        for quantity in ('forward', 'step'):
            row[quantity + suffix] = rivals.floor_time(by_product, quantity)
        for kind, library in sorted(by_product, key=by_product.get, reverse=True):
            row['libraries'][kind] = library  # the fastest comes last
    return row


def _too_big(name: str, rival: rivals.Rival, x: torch.Tensor, args: argparse.Namespace) -> str:
    """Return why a rival is not run at this size, or ''.

    A core does roughly 5e10 operations a second.
    """
    if name == 'formula, autograd' and x.shape[2:].numel() > FORMULA_COUNT:
        return 'seven inputs'
    if not rival.quadratic:
        return ''
    batch, channels, height, width = x.shape
    pairs = batch * (height * width) ** 2
    gigabytes = max(rival.quadratic, 0) * pairs * x.element_size() / 1e9
    if gigabytes > args.memory:
        return f'{gigabytes:.0f} GB'
    speed = 5e10 * torch.get_num_threads() if torch.device(args.device).type == 'cpu' else 1e13
    seconds = 7 * channels * pairs / speed
    return f'about {seconds:.0f} s' if seconds > args.slowest else ''


if __name__ == '__main__':
    main()
