"""Measure the coefficients of the operator's cost model and how well it chooses.

    python benchmarks/calibrate.py --threads 2

Prints the rows of ``RATES`` in polynl_mmdet/ops/cost.py for this machine, then times both forms
over a grid of shapes and shows what the present table's choice costs against the better form.
"""

from __future__ import annotations

import sys
from os.path import abspath, dirname

# A script's own folder comes first on the path; its operator.py would hide the standard library's.
sys.path[0] = dirname(dirname(abspath(__file__)))

import argparse  # noqa: E402
from statistics import median  # noqa: E402

import torch  # noqa: E402

from benchmarks.measure import interleaved_times, machine, markdown  # noqa: E402
from benchmarks.rivals import make_parameters  # noqa: E402
from polynl_mmdet.ops import poly_nl  # noqa: E402
from polynl_mmdet.ops.cost import cheaper_method  # noqa: E402
from polynl_mmdet.ops.layout import Positions  # noqa: E402
from polynl_mmdet.ops.precision import accumulation_dtype  # noqa: E402
from polynl_mmdet.ops.products import cross_moment, multiply  # noqa: E402

# Channels, and positions, of the products that rates are measured with. The forms come close where
# there are about as many of one as of the other; a GPU takes longer to start a small product than
# to compute it.
SIDE = {'cpu': 512, 'cuda': 4096}
GRID = [(b, c, n) for b in (1, 4) for c in (16, 64, 256, 1024) for n in (1, 49, 400, 1600)]
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
    parser.add_argument('--quick', action='store_true', help='one round, two shapes')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    budget = 0.0 if args.quick else args.budget
    print(machine(args.device))
    for name in args.dtypes:
        show_rates(getattr(torch, name), args.device, budget)
    grid = [(1, 16, 49), (1, 64, 16)] if args.quick else GRID
    choices = {}
    for name in args.dtypes:
        found = show_choices(getattr(torch, name), args.device, grid, budget / 10)
        choices.update({f'{name} {case}': ratios for case, ratios in found.items()})
    show_summary(choices)


def show_rates(dtype: torch.dtype, device: str, budget: float) -> None:
    """Print one row of the table."""
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
            'square': lambda: torch.matmul(square[0], square),
            'pass': lambda: x * g,
            'small': lambda: small * small,
        },
        device,
        budget,
    )
    seconds = {name: median(times) for name, times in found.items()}
    print(
        f'({kind!r}, {dtype}): Rates('
        f'{2 * side**3 / seconds["product"]:.1e}, '
        f'{seconds["moment"] / seconds["product"]:.2f}, '
        f'{seconds["cross"] / seconds["product"]:.2f}, '
        f'{2 * side**3 / seconds["square"]:.1e}, '
        f'{3 * x.numel() * x.element_size() / seconds["pass"]:.1e}, '
        f'{seconds["small"]:.0e}),'
    )


def show_choices(
    dtype: torch.dtype, device: str, grid: list[tuple[int, int, int]], budget: float
) -> dict[str, tuple[float, float]]:
    """Print both forms' times over a grid, and the choice with what it costs.

    Returns:
        dict[str, tuple[float, float]]: By case, the chosen form's time in multiples of the better
        one's and of literal's.
    """
    rows = []
    ratios = {}
    for batch, channels, count in grid:
        x = torch.randn(batch, channels, count, device=device).to(dtype).requires_grad_()
        grad = torch.randn_like(x)
        # As in training with AMP, weights stay in float32.
        params = make_parameters(channels, x.new_empty(0, dtype=accumulation_dtype(dtype)))

        def forward(method, x=x, params=params):
            with torch.no_grad():
                poly_nl(x, *params, method=method)

        def step(method, x=x, params=params, grad=grad):
            torch.autograd.grad(poly_nl(x, *params, method=method), (x, *params), grad)

        for label, run, backward in (('forward', forward, False), ('step', step, True)):
            found = interleaved_times(
                {m: lambda r=run, m=m: r(m) for m in ('literal', 'covariance')}, device, budget
            )
            times = {method: median(all_of_it) for method, all_of_it in found.items()}
            chosen = cheaper_method(x.shape, dtype, x.device.type, backward)
            case = f'({batch}, {channels}, {count}), {label}'
            best, literal = min(times.values()), times['literal']
            ratios[case] = times[chosen] / best, times[chosen] / literal
            rows.append(
                [
                    case,
                    f'{times["literal"] * 1e3:.2f}',
                    f'{times["covariance"] * 1e3:.2f}',
                    chosen,
                    f'{ratios[case][0]:.2f}',
                ]
            )
    print(f'\n{dtype}\n')
    print(markdown(['', 'literal ms', 'covariance ms', 'chosen', 'x the better'], rows))
    return ratios


def show_summary(choices: dict[str, tuple[float, float]]) -> None:
    """Print how many choices were right, and those that are slower than literal."""
    near = sum(better <= TOLERANCE for better, _ in choices.values())
    print(f'\n{near} of {len(choices)} choices take at most {TOLERANCE} x the better form')
    slower = [
        f'{case} ({literal:.2f} x)' for case, (_, literal) in choices.items() if literal > TOLERANCE
    ]
    print(f'slower than literal by more: {"; ".join(slower) or "none"}')


if __name__ == '__main__':
    main()
