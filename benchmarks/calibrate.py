"""Measure the coefficients of the operator's cost model and how well it chooses.

    python benchmarks/calibrate.py --threads 2
    python benchmarks/calibrate.py --device cuda --save

Prints the rows of ``RATES`` in polynl_mmdet/ops/cost.py for this machine, then times both forms
over a grid of shapes, in both memory formats, and shows what the choice by these rates costs
against the better form and against the published order by three 1 x 1 convolutions. --save keeps
the rates for this device, torch and settings: from the next process on they decide instead of the
table.
"""

from __future__ import annotations

import sys
from os.path import abspath, dirname

# A script's own folder comes first on the path; its operator.py would hide the standard library's.
sys.path[0] = dirname(dirname(abspath(__file__)))

import argparse  # noqa: E402
from functools import partial  # noqa: E402
from itertools import product  # noqa: E402
from statistics import median  # noqa: E402

import torch  # noqa: E402

from benchmarks.measure import interleaved_times, machine, markdown  # noqa: E402
from benchmarks.rivals import LAST, make_parameters, poly_nl_by_conv2d  # noqa: E402
from polynl_mmdet.ops import poly_nl  # noqa: E402
from polynl_mmdet.ops.cost import Rates, cheaper_method, table_of  # noqa: E402
from polynl_mmdet.ops.cpu_library import library_in_use  # noqa: E402
from polynl_mmdet.ops.layout import Positions  # noqa: E402
from polynl_mmdet.ops.measured_rates import rates_in_use, store_rates  # noqa: E402
from polynl_mmdet.ops.precision import accumulation_dtype  # noqa: E402
from polynl_mmdet.ops.products import cross_moment, left_multiply, multiply  # noqa: E402

# Channels, and positions, of the products that rates are measured with. The forms come close where
# there are about as many of one as of the other; a GPU takes longer to start a small product than
# to compute it.
SIDE = {'cpu': 512, 'cuda': 4096}
# Batch, channels, and the side of a square map.
GRID = [(b, c, side) for b in (1, 2, 8) for c in (16, 64, 256, 1024) for side in (1, 7, 20, 40)]
# What counts as equally fast.
TOLERANCE = 1.05


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        '--dtypes', nargs='+', default=['float32', 'float64', 'bfloat16', 'float16']
    )
    parser.add_argument('--budget', type=float, default=1.0, help='seconds a measurement')
    parser.add_argument(
        '--save',
        action='store_true',
        help="keep the rates in the user's cache, where the layer reads them",
    )
    parser.add_argument('--quick', action='store_true', help='one round, two shapes')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    budget = 0.0 if args.quick else args.budget
    print(machine(args.device))
    kind = torch.device(args.device).type
    dtypes = [getattr(torch, name) for name in args.dtypes]
    rates = {dtype: show_rates(dtype, args.device, budget) for dtype in dtypes}
    if args.save:
        print(f'wrote {store_rates(kind, library_in_use(kind), rates)}')
    grid = [(1, 16, 7), (1, 64, 4)] if args.quick else GRID
    choices = {}
    for name, dtype in zip(args.dtypes, dtypes):
        used = rates[dtype] if args.save else rates_in_use(kind, dtype, library_in_use(kind))
        found = show_choices(dtype, args.device, grid, budget / 10, used)
        choices.update({f'{name} {case}': ratios for case, ratios in found.items()})
    show_summary(choices)


def show_rates(dtype: torch.dtype, device: str, budget: float) -> Rates:
    """Measure one row of the table, print and return it."""
    kind = torch.device(device).type
    side = SIDE[kind]
    x, g = (torch.randn(1, side, side, device=device).to(dtype) for _ in range(2))
    # float16 is widened on a CPU, chunk by chunk.
    wide = torch.float32 if (dtype, kind) == (torch.float16, 'cpu') else dtype
    matrix = torch.randn(1, side, side, device=device).to(wide)
    square = matrix.to(accumulation_dtype(dtype))
    layout = Positions(x)
    small = torch.randn(1, device=device)
    found = interleaved_times(
        {
            'product': lambda: multiply(matrix, x.to(wide), False),
            'moment': lambda: cross_moment(x, x, layout),
            'cross': lambda: cross_moment(g, x, layout),
            'square': lambda: left_multiply(square[0], square),
            'pass': lambda: x * g,
            'small': lambda: small * small,
        },
        device,
        budget,
    )
    seconds = {name: median(times) for name, times in found.items()}
    table = table_of(kind, library_in_use(kind))
    rates = Rates(
        position_products=2 * side**3 / seconds['product'],
        second_moment=seconds['moment'] / seconds['product'],
        cross_moment=seconds['cross'] / seconds['product'],
        channel_products=2 * side**3 / seconds['square'],
        passes=3 * x.numel() * x.element_size() / seconds['pass'],
        overhead=seconds['small'],
    )
    print(f'({table!r}, {dtype}): Rates({", ".join(f"{value:.2g}" for value in rates)}),')
    return rates


def show_choices(
    dtype: torch.dtype,
    device: str,
    grid: list[tuple[int, int, int]],
    budget: float,
    rates: Rates,
) -> dict[str, tuple[float, float]]:
    """Print the times of both forms and of 1 x 1 convolutions over a grid, and the choice.

    Returns:
        dict[str, tuple[float, float]]: By case, the chosen form's time in multiples of the better
        one's and of the convolutions'.
    """
    rows = []
    ratios = {}
    for (batch, channels, side), last in product(grid, (False, True)):
        x = torch.randn(batch, channels, side, side, device=device).to(dtype)
        x = x.to(memory_format=torch.channels_last) if last else x
        x.requires_grad_()
        grad = torch.randn_like(x)
        # As in training with AMP, weights stay in float32.
        params = make_parameters(channels, x.new_empty(0, dtype=accumulation_dtype(dtype)))
        forms = {m: partial(poly_nl, method=m) for m in ('literal', 'covariance')}
        forms['conv2d'] = poly_nl_by_conv2d

        def forward(form, x=x, params=params):
            with torch.no_grad():
                form(x, *params)

        def step(form, x=x, params=params, grad=grad):
            torch.autograd.grad(form(x, *params), (x, *params), grad)

        for label, run, backward in (('forward', forward, False), ('step', step, True)):
            found = interleaved_times(
                {name: partial(run, form) for name, form in forms.items()}, device, budget
            )
            times = {name: median(all_of_it) for name, all_of_it in found.items()}
            chosen = cheaper_method(x.shape, dtype, x.device.type, backward, rates)
            case = f'{tuple(x.shape)}{LAST if last else ""}, {label}'
            best = min(times['literal'], times['covariance'])
            ratios[case] = times[chosen] / best, times[chosen] / times['conv2d']
            cells = [f'{seconds * 1e3:.2f}' for seconds in times.values()]
            rows.append([case, *cells, chosen, *(f'{ratio:.2f}' for ratio in ratios[case])])
    print(f'\n{dtype}\n')
    header = ['', *(f'{name} ms' for name in forms), 'chosen', 'x the better', 'x conv2d']
    print(markdown(header, rows))
    return ratios


def show_summary(choices: dict[str, tuple[float, float]]) -> None:
    """Print how many choices were right, and those that are slower than the convolutions."""
    near = sum(better <= TOLERANCE for better, _ in choices.values())
    print(f'\n{near} of {len(choices)} choices take at most {TOLERANCE} x the better form')
    slower = [
        f'{case} ({convolutions:.2f} x)'
        for case, (_, convolutions) in choices.items()
        if convolutions > TOLERANCE
    ]
    print(
        f'{len(slower)} take more than {TOLERANCE} x the published order by convolutions: '
        f'{"; ".join(slower) or "none"}'
    )


if __name__ == '__main__':
    main()
