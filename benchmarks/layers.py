"""What each non-local layer costs: parameters, operations, time and memory.

    python benchmarks/layers.py --threads 2 --output layers.json --plot layers.png

First at the res4 site of a Mask R-CNN on 800 x 1344 pixels: 50 x 84 positions, 1024 channels
between two blocks and 256 inside a bottleneck. Then over growing numbers of positions, then whole
backbones. Prints tables in Markdown. Layers have the arguments that their papers or mmcv use by
default.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.pop(1)  # This folder: operator.py in it would hide the standard library's.
os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # Read once, when torch is imported.

import argparse
import statistics
from functools import partial
from pathlib import Path

import mmcv.cnn.bricks  # noqa: F401  Registers mmcv's layers.
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import polynl_mmdet  # noqa: F401  Registers ours.
from benchmarks import layer_networks
from benchmarks.measure import (
    bytes_kept,
    fitted_exponent,
    interleaved_times,
    machine,
    markdown,
    peak_bytes,
)
from benchmarks.scaling_plot import Panel, draw_panels
from benchmarks.study import store, stored
from polynl_mmdet.errors import InputError, one_line_errors

LAYERS = {
    'PolyNL': dict(context_norm=True),
    'PolyNL-published': dict(type='PolyNL'),
    'NonLocal2d': {},
    'DisentangledNonLocal': {},
    'PyramidNonLocal': {},
    'GeneralizedAttention': dict(num_heads=8),
    'EfficientAttention': {},
    'DoubleAttention': {},
    'CompactGeneralizedNonLocal': {},
    'ContextBlock': dict(ratio=1 / 16),
    'SqueezeExcitation': {},
    'SpatialBias': {},
    'ReLULinearAttention': {},
    'AgentAttention': {},
    'GlobalResponseNorm': {},
}
PARTS = ('sites', 'scaling', 'networks')
SITES = ((1024, 50, 84), (256, 50, 84))
SCALING_CHANNELS = 256
SCALING = [(SCALING_CHANNELS, side, side) for side in (16, 32, 64, 128, 256)]
MEMORY, SLOWEST = 6.0, 8.0  # GB and seconds that a layer may take.
# Of the layers that compare pairs: N x N matrices that a step holds, and the share of the pairs.
PAIRS = {
    'NonLocal2d': (4, 1.0),
    'DisentangledNonLocal': (0, 1.0),
    'PyramidNonLocal': (0, 1 / 4 + 1 / 16 + 1 / 64),
    'GeneralizedAttention': (8, 1 / 4),
}
MARKS = 'oos^vD<>PX*hpd8'


def build(name: str, channels: int) -> nn.Module:
    """nn.Module: a layer as in a trained network, away from its initial zeros."""
    torch.manual_seed(0)
    layer = MODELS.build({'type': name, 'in_channels': channels, **LAYERS[name]})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return layer


def _attention_flops(queries: list[int], keys: list[int], values: list[int], *_, **__) -> int:
    """int: operations of softmax(Q K^T) V, from shapes (B, heads, N, d)."""
    batch, heads, count, width = queries
    return 2 * batch * heads * count * keys[2] * (width + values[3])


def flops(layer: nn.Module, x: Tensor) -> int:
    """int: operations of a forward pass in products and convolutions; a multiply-add counts 2."""
    # PyTorch's counter does not know the attention kernel of a CPU.
    extra = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    counter = FlopCounterMode(display=False, custom_mapping=extra)
    with counter, torch.no_grad():
        layer(x)
    return counter.get_total_flops()


def measure(shape: tuple[int, int, int], budget: float, rounds: int) -> list[dict]:
    """Measure every layer at one shape.

    Args:
        shape (tuple): C, H, W; one image.
        budget (float): Seconds of rounds.
        rounds (int): Rounds at least.

    Returns:
        list[dict]: ``name``, ``parameters``, ``flops`` of a forward pass, seconds ``forward`` and
        ``step`` (forward and backward), bytes ``kept`` for the backward pass and ``peak`` of a
        step; or why a layer was ``left out``.
    """
    x = torch.randn(1, *shape, requires_grad=True)
    grad = torch.randn(1, *shape)
    rows = {name: {'name': name, 'shape': list(shape)} for name in LAYERS}
    left_out = {name: {'left out': reason} for name in LAYERS if (reason := too_big(name, shape))}
    found = {name: build(name, shape[0]) for name in LAYERS if name not in left_out}

    def forward(layer: nn.Module) -> None:
        with torch.no_grad():
            layer(x)

    def step(layer: nn.Module) -> None:
        parameters = [p for p in layer.parameters() if p.requires_grad]
        torch.autograd.grad(layer(x), (x, *parameters), grad)

    runs = {(name, 'forward'): partial(forward, layer) for name, layer in found.items()}
    runs.update({(name, 'step'): partial(step, layer) for name, layer in found.items()})
    times = interleaved_times(runs, 'cpu', budget, rounds, warm_up=1)
    for name, layer in found.items():
        rows[name].update(
            parameters=sum(p.numel() for p in layer.parameters()),
            flops=flops(layer, x),
            forward=statistics.median(times[name, 'forward']),
            step=statistics.median(times[name, 'step']),
            kept=bytes_kept(partial(layer, x), list(layer.parameters())),
            peak=peak_bytes(partial(step, layer), 'cpu'),
        )
    return [{**row, **left_out.get(name, {})} for name, row in rows.items()]


def too_big(name: str, shape: tuple[int, int, int]) -> str:
    """str: why a layer is not run at a shape, or ''. A core does about 5e10 operations a second."""
    matrices, share = PAIRS.get(name, (0, 0.0))
    pairs = (shape[1] * shape[2]) ** 2
    gigabytes = 4 * matrices * pairs / 1e9
    if gigabytes > MEMORY:
        return f'{gigabytes:.0f} GB'
    seconds = 7 * shape[0] * share * pairs / (5e10 * torch.get_num_threads())
    return f'about {seconds:.0f} s' if seconds > SLOWEST else ''


def show(rows: list[dict], title: str) -> None:
    """Print one shape's table, quickest forward pass first."""
    channels, height, width = rows[0]['shape']
    size = 4 * channels * height * width
    print(f'\n{title}: {channels} channels, {height} x {width}\n')
    done = sorted((row for row in rows if 'forward' in row), key=lambda row: row['forward'])
    header = ['', 'parameters', 'GFLOP', 'forward ms', 'step ms', 'kept / input', 'peak / input']
    cells = [
        [
            row['name'],
            f'{row["parameters"]:,}',
            f'{row["flops"] / 1e9:.3g}',
            f'{row["forward"] * 1e3:.1f}',
            f'{row["step"] * 1e3:.1f}',
            f'{row["kept"] / size:.2f}',
            f'{row["peak"] / size:.2f}',
        ]
        for row in done
    ]
    cells += [[row['name'], *[''] * 5, row['left out']] for row in rows if 'left out' in row]
    print(markdown(header, cells), flush=True)


def show_exponents(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Print the slopes of log time and log memory over log N, the two largest sizes apart."""
    exponents: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row['name'] for row in rows):
        mine = [row for row in rows if row['name'] == name and 'forward' in row][-3:]
        if len(mine) < 2:
            continue
        counts = [row['shape'][1] * row['shape'][2] for row in mine]
        exponents[name] = {
            quantity: fitted_exponent(counts, [row[quantity] for row in mine])
            for quantity in ('forward', 'step', 'peak')
        }
        exponents[name]['from'], exponents[name]['to'] = counts[0], counts[-1]
    print('\nexponents over N (the last three sizes that were measured)\n')
    header = ['', 'N', 'forward', 'step', 'peak']
    print(
        markdown(
            header,
            [
                [name, f'{line["from"]:,} to {line["to"]:,}']
                + [f'{line[quantity]:.2f}' for quantity in header[2:]]
                for name, line in exponents.items()
            ],
        )
    )
    return exponents


def plot(rows: list[dict], path: Path) -> None:
    """Draw time and memory of a step over N."""
    panels = []
    for quantity, scale, label in (
        ('step', 1e3, 'ms, forward and backward'),
        ('peak', 1e-6, 'MB at most in a step'),
    ):
        panel = Panel(f'{SCALING_CHANNELS} channels, one image, float32', label)
        for mark, name in zip(MARKS, dict.fromkeys(row['name'] for row in rows)):
            mine = [row for row in rows if row['name'] == name and quantity in row]
            counts = [row['shape'][1] * row['shape'][2] for row in mine]
            # The others' colours repeat after ten, their marks do not.
            style = dict(color='black', lw=2) if name == 'PolyNL' else dict(lw=1.2)
            values = [scale * row[quantity] for row in mine]
            panel.curves.append((name, mark + '-', counts, values, style))
        panels.append(panel)
    draw_panels([panels], path)


def main() -> None:
    """Measure the parts, print and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument('--budget', type=float, default=6.0, help='seconds of rounds a shape')
    parser.add_argument(
        '--part', nargs='+', choices=PARTS, default=list(PARTS), help='others are kept in --output'
    )
    parser.add_argument('--quick', action='store_true', help='tiny shapes: a check that it runs')
    parser.add_argument('--output', type=Path, help='JSON file')
    parser.add_argument('--plot', type=Path, help='image of the scaling')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    report = {}
    if args.output and args.output.exists() and len(args.part) < len(PARTS):
        report = stored(args.output, ('machine',))
    if args.plot and 'scaling' not in (*args.part, *report):
        raise InputError('--plot', 'no scaling was measured', 'accepted: with --part scaling')
    report['command'] = ' '.join(['python benchmarks/layers.py', *sys.argv[1:]])
    report['machine'] = machine('cpu')
    print(report['machine'])
    budget, rounds = (0.0, 1) if args.quick else (args.budget, 3)
    sites = [(32, 6, 7)] if args.quick else SITES
    scaling = [(32, side, side) for side in (4, 8)] if args.quick else SCALING
    for part, shapes in (('sites', sites), ('scaling', scaling)):
        if part in args.part:
            report[part] = []
            for shape in shapes:
                report[part] += measure(shape, budget, rounds)
                show(report[part][-len(LAYERS) :], part)
                store(report, args.output)  # a long run that is stopped keeps what it has
    if 'scaling' in args.part:
        report['exponents'] = show_exponents(report['scaling'])
    if 'networks' in args.part:
        report['networks'] = layer_networks.measure(budget, rounds, args.quick)
        layer_networks.show(report['networks'])
    store(report, args.output)
    if args.plot:
        plot(report['scaling'], args.plot)


if __name__ == '__main__':
    with one_line_errors():
        main()
