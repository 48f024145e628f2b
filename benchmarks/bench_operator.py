"""Time and memory of Poly-NL next to three 1 x 1 convolutions and to other layers.

    python benchmarks/bench_operator.py --threads 2 --output operator.json
    python benchmarks/bench_operator.py --shapes 1x64x1000x1000 --dtype bfloat16

The shapes are the maps of a ResNet-50's stages. `step` is forward and backward. Needs PyTorch;
mmcv's layers are measured where mmcv is installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import geometric_mean, median
from typing import Callable

from timing import bytes_kept, interleaved_times, machine, markdown, peak_bytes, write_json

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polynl_mmdet.ops import poly_nl

IMAGES = ((800, 1344), (640, 640))
# Channels of a ResNet-50's stages after conv2 and after conv3 of a bottleneck.
STAGES = ((64, 128, 256, 512), (256, 512, 1024, 2048))
STRIDES = (4, 8, 16, 32)
POLY_NL, CONV2D, LAST = 'Poly-NL', 'conv2d', ', channels last'


def poly_nl_by_conv2d(
    x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """Compute Poly-NL as one writes it at first: three 1 x 1 convolutions and autograd."""
    left, right = (F.conv2d(x, w[:, :, None, None]) for w in (w1, w2))
    context = (left * right).mean((2, 3), keepdim=True)
    return alpha * x + beta * F.conv2d(context * x, w3[:, :, None, None])


def rivals(x: Tensor) -> dict[str, tuple[Callable[[Tensor], Tensor], list[Tensor]]]:
    """Return name -> (function, parameters) for maps like ``x``."""
    batch, channels, height, width = x.shape
    like = dict(device=x.device, dtype=x.dtype)
    weights = [torch.randn(channels, channels, **like) / channels**0.5 for _ in range(3)]
    params = [*weights, torch.ones(1, **like), torch.full((1,), 0.1, **like)]
    params = [p.requires_grad_() for p in params]
    norm = nn.LayerNorm(channels, device=x.device)
    normed = [*params, *norm.parameters()]
    found = {
        POLY_NL: (lambda x: poly_nl(x, *params), params),
        'Poly-NL, context norm': (lambda x: poly_nl(x, *params, context_norm=norm), normed),
        'moments': (lambda x: poly_nl(x, *params, method='moments'), params),
        'projections': (lambda x: poly_nl(x, *params, method='projections'), params),
        CONV2D: (lambda x: poly_nl_by_conv2d(x, *params), params),
    }
    found.update({name + LAST: found[name] for name in (POLY_NL, CONV2D)})
    try:
        from mmcv.cnn import ContextBlock, NonLocal2d
    except ImportError:
        return found
    layers = {'ContextBlock': ContextBlock(channels, ratio=1 / 16)}
    pairs = batch * (height * width) ** 2
    if 16 * pairs < 6e9 and 7 * channels * pairs < 4e11:  # bytes, operations
        layers['NonLocal2d'] = NonLocal2d(channels, mode='embedded_gaussian')
    for name, layer in layers.items():
        found[name] = (layer.to(**like), list(layer.parameters()))
    return found


def measure(shape: tuple[int, int, int, int], args: argparse.Namespace) -> list[dict]:
    """Return per rival seconds, and bytes kept and at peak in multiples of the input's."""
    torch.manual_seed(0)
    x, grad = (torch.randn(shape, device=args.device, dtype=args.dtype) for _ in range(2))
    inputs = {False: (x, grad)}
    inputs[True] = [t.contiguous(memory_format=torch.channels_last) for t in (x, grad)]
    inputs[False][0].requires_grad_()
    inputs[True][0].requires_grad_()
    functions = rivals(x)

    def forward(name: str) -> Tensor:
        return functions[name][0](inputs[name.endswith(LAST)][0])

    def inference(name: str) -> None:
        with torch.no_grad():
            forward(name)

    def step(name: str) -> None:
        x, grad = inputs[name.endswith(LAST)]
        torch.autograd.grad(forward(name), (x, *functions[name][1]), grad)

    runs = {(name, 'forward'): lambda name=name: inference(name) for name in functions}
    runs.update({(name, 'step'): lambda name=name: step(name) for name in functions})
    rounds, budget = (1, 0.0) if args.quick else (5, args.budget)
    times = interleaved_times(runs, args.device, budget, rounds, min(rounds, 2))
    rows = []
    for name, (_, params) in functions.items():
        row = {'name': name, 'shape': list(shape)}
        for quantity in ('forward', 'step'):
            row[quantity] = median(times[name, quantity])
            row[f'{quantity}, min'] = min(times[name, quantity])
        size = x.numel() * x.element_size()
        row['kept'] = bytes_kept(lambda name=name: forward(name), params) / size
        row['peak'] = peak_bytes(lambda name=name: step(name), args.device) / size
        rows.append(row)
    return rows


def show(rows: list[dict]) -> None:
    """Print one shape's table."""
    print('\n' + ' x '.join(map(str, rows[0]['shape'])) + '\n')
    header = ['', 'forward ms', 'min', 'step ms', 'min', 'kept', 'peak']
    quantities = ('forward', 'forward, min', 'step', 'step, min')
    cells = [
        [row['name'], *(f'{row[q] * 1e3:.2f}' for q in quantities)]
        + [f'{row["kept"]:.2f}', f'{row["peak"]:.2f}']
        for row in rows
    ]
    print(markdown(header, cells), flush=True)


def summary(rows: list[dict]) -> dict[str, float]:
    """Return how many times as fast Poly-NL is as three conv2d: geometric means over the shapes."""
    seconds = {(tuple(row['shape']), row['name']): row for row in rows}
    shapes = list(dict.fromkeys(shape for shape, _ in seconds))
    many = [s for s in shapes if s[2] * s[3] >= 16 * s[1]]
    found = {}
    for label, chosen in (('all shapes', shapes), ('N >= 16 C', many)):
        for suffix in ('', LAST):
            for quantity in ('forward', 'step'):
                ratios = [
                    seconds[s, CONV2D + suffix][quantity] / seconds[s, POLY_NL + suffix][quantity]
                    for s in chosen
                ]
                if ratios:
                    key = f'{label} ({len(ratios)}): {quantity}, conv2d / Poly-NL{suffix}'
                    found[key] = geometric_mean(ratios)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16', 'float16'])
    parser.add_argument('--batch', nargs='+', type=int, default=[1, 2])
    parser.add_argument(
        '--shapes', nargs='+', metavar='BxCxHxW', help='instead of the default ones'
    )
    parser.add_argument('--budget', type=float, default=4.0, help='seconds per shape')
    parser.add_argument('--quick', action='store_true', help='a small shape, one round')
    parser.add_argument('--output', type=Path, help='JSON file')
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype)
    if args.threads:
        torch.set_num_threads(args.threads)
    shapes = [
        (batch, channels[i], -(-height // stride), -(-width // stride))
        for height, width in IMAGES
        for channels in STAGES
        for batch in args.batch
        for i, stride in enumerate(STRIDES)
    ]
    if args.shapes:
        shapes = [tuple(int(n) for n in shape.split('x')) for shape in args.shapes]
    elif args.quick:
        shapes = [(1, 16, 16, 17)]
    report = {'machine': machine(args.device), 'dtype': str(args.dtype), 'rows': []}
    print(report)
    for shape in shapes:
        rows = measure(shape, args)
        show(rows)
        report['rows'] += rows
        report['summary'] = summary(report['rows'])
        write_json(report, args.output)
    cells = [[key, f'{value:.2f}'] for key, value in report['summary'].items()]
    print('\n' + markdown(['geometric means', ''], cells))


if __name__ == '__main__':
    main()
