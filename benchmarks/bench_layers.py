"""Parameters, operations, time and memory of the context layers.

    python benchmarks/bench_layers.py --threads 2 --output layers.json --plot layers_scaling.png

First at the c4 site of a Mask R-CNN on an image of 800 x 1344: 50 x 84 positions, 1024 channels
between two blocks, 256 inside a bottleneck. Then over the number of positions. `step` is forward
and backward. Layers have the default arguments of their papers or of mmcv. Needs mmcv.
"""

from __future__ import annotations

import argparse
from functools import partial
from math import log
from pathlib import Path
from statistics import median

from timing import bytes_kept, interleaved_times, machine, markdown, peak_bytes, write_json

# isort: split
import mmcv.cnn.bricks  # noqa: F401  Registers mmcv's layers.
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import polynl_mmdet.layers  # noqa: F401  Registers ours.

LAYERS = {
    'PolyNL': dict(context_norm=True),
    'PolyNL, published': dict(type='PolyNL'),
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
SITES = ((1024, 50, 84), (256, 50, 84))
SCALING = [(256, side, side) for side in (16, 32, 64, 128, 256)]
# Layers that compare pairs: N x N matrices that a step holds, and the share of the pairs.
PAIRS = {
    'NonLocal2d': (4, 1.0),
    'DisentangledNonLocal': (0, 1.0),
    'PyramidNonLocal': (0, 1 / 4 + 1 / 16 + 1 / 64),
    'GeneralizedAttention': (8, 1 / 4),
}
MARKS = 'oos^vD<>PX*hpd8'


def build(name: str, channels: int) -> nn.Module:
    """Return a layer with weights away from its initial zeros."""
    torch.manual_seed(0)
    layer = MODELS.build({'type': name, 'in_channels': channels, **LAYERS[name]})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return layer


def _attention_flops(query: list[int], key: list[int], value: list[int], *_, **__) -> int:
    batch, heads, count, width = query
    return 2 * batch * heads * count * key[2] * (width + value[3])


def flops(layer: nn.Module, x: Tensor) -> int:
    """Return a forward pass's operations in products and convolutions; a multiply-add is 2."""
    # PyTorch's counter does not know the attention kernel of a CPU.
    kernels = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=kernels) as counter, torch.no_grad():
        layer(x)
    return counter.get_total_flops()


def skip_reason(name: str, shape: tuple[int, int, int]) -> str:
    """Return why a layer is skipped at a shape, or ''."""
    matrices, share = PAIRS.get(name, (0, 0.0))
    pairs = (shape[1] * shape[2]) ** 2
    gigabytes = 4 * matrices * pairs / 1e9
    if gigabytes > 6:
        return f'{gigabytes:.0f} GB'
    # A core does about 5e10 operations per second.
    seconds = 7 * shape[0] * share * pairs / (5e10 * torch.get_num_threads())
    return f'about {seconds:.0f} s' if seconds > 8 else ''


def measure(shape: tuple[int, int, int], budget: float, rounds: int) -> list[dict]:
    """Return what every layer costs on one map (C, H, W) in seconds and bytes."""
    x, grad = torch.randn(1, *shape, requires_grad=True), torch.randn(1, *shape)
    layers = {name: build(name, shape[0]) for name in LAYERS if not skip_reason(name, shape)}

    def forward(layer: nn.Module) -> None:
        with torch.no_grad():
            layer(x)

    def step(layer: nn.Module) -> None:
        torch.autograd.grad(layer(x), (x, *layer.parameters()), grad)

    runs = {(name, 'forward'): partial(forward, layer) for name, layer in layers.items()}
    runs.update({(name, 'step'): partial(step, layer) for name, layer in layers.items()})
    times = interleaved_times(runs, 'cpu', budget, rounds, warm_up=1)
    rows = []
    for name in LAYERS:
        row = {'name': name, 'shape': list(shape)}
        if name in layers:
            layer = layers[name]
            row.update(
                parameters=sum(p.numel() for p in layer.parameters()),
                flops=flops(layer, x),
                forward=median(times[name, 'forward']),
                step=median(times[name, 'step']),
                kept=bytes_kept(partial(layer, x), list(layer.parameters())),
                peak=peak_bytes(partial(step, layer), 'cpu'),
            )
        else:
            row['skipped'] = skip_reason(name, shape)
        rows.append(row)
    return rows


def show(rows: list[dict]) -> None:
    """Print one shape's table, fastest forward pass first."""
    channels, height, width = rows[0]['shape']
    size = 4 * channels * height * width
    header = ['', 'parameters', 'GFLOP', 'forward ms', 'step ms', 'kept / input', 'peak / input']
    cells = [
        [row['name'], f'{row["parameters"]:,}', f'{row["flops"] / 1e9:.3g}']
        + [f'{row[quantity] * 1e3:.1f}' for quantity in ('forward', 'step')]
        + [f'{row[quantity] / size:.2f}' for quantity in ('kept', 'peak')]
        for row in sorted(rows, key=lambda row: row.get('forward', 0))
        if 'forward' in row
    ]
    cells += [[row['name'], *[''] * 5, row['skipped']] for row in rows if 'skipped' in row]
    print(f'\n{channels} channels, {height} x {width}\n\n{markdown(header, cells)}', flush=True)


def exponents(rows: list[dict]) -> dict[str, float]:
    """Return by layer the slope of log(step) over log(N) over the three largest sizes measured."""
    slopes = {}
    for name in LAYERS:
        mine = [row for row in rows if row['name'] == name and 'step' in row][-3:]
        sizes = [(row['shape'][1] * row['shape'][2], row['step']) for row in mine]
        small, large = sizes[0], sizes[-1]
        slopes[name] = round(log(large[1] / small[1]) / log(large[0] / small[0]), 2)
    return slopes


def plot(rows: list[dict], path: Path) -> None:
    """Draw time and memory of a step over N."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5))
    for axis, quantity, scale, label in (
        (axes[0], 'step', 1e3, 'forward and backward, ms'),
        (axes[1], 'peak', 1e-6, 'peak memory of a step, MB'),
    ):
        for mark, name in zip(MARKS, LAYERS):
            mine = [row for row in rows if row['name'] == name and quantity in row]
            counts = [row['shape'][1] * row['shape'][2] for row in mine]
            style = dict(color='black', lw=2) if name == 'PolyNL' else dict(lw=1.2)
            values = [scale * row[quantity] for row in mine]
            axis.loglog(counts, values, mark + '-', label=name, ms=4, **style)
        axis.set(xlabel='positions N', ylabel=label, title=f'{rows[0]["shape"][0]} channels')
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument('--budget', type=float, default=6.0, help='seconds per shape')
    parser.add_argument('--quick', action='store_true', help='small shapes, one round')
    parser.add_argument('--output', type=Path, help='JSON file')
    parser.add_argument('--plot', type=Path, help='image of cost over positions')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    budget, rounds = (0.0, 1) if args.quick else (args.budget, 3)
    report = {'machine': machine('cpu'), 'sites': [], 'scaling': []}
    print(report['machine'])
    for part, shapes in (
        ('sites', [(32, 6, 7)] if args.quick else SITES),
        ('scaling', [(32, side, side) for side in (4, 8)] if args.quick else SCALING),
    ):
        for shape in shapes:
            rows = measure(shape, budget, rounds)
            show(rows)
            report[part] += rows
            write_json(report, args.output)
    report['exponents'] = exponents(report['scaling'])
    print('\nexponents of N in the time of a step:', report['exponents'])
    write_json(report, args.output)
    if args.plot:
        plot(report['scaling'], args.plot)


if __name__ == '__main__':
    main()
