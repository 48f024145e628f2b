"""What a layer costs on each level of a feature pyramid, and on which it cannot run at all.

    python benchmarks/pyramid_levels.py --threads 2 --output docs/pyramid_levels.json

The levels P2 to P5 of one image of 800 x 1344 pixels, 256 channels: where LevelContext puts a
layer behind an FPN. A training step that would take more than --memory is not run; its row says
what it would take.
"""

import os
import sys
from os.path import abspath, dirname

# A script's own folder comes first on the path, and `operator.py` in this one would hide the
# standard library's.
sys.path[0] = dirname(dirname(abspath(__file__)))
os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # Read once, when torch is imported.

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import mmcv.cnn.bricks  # noqa: E402, F401  Registers mmcv's layers.
import torch  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import polynl_mmdet  # noqa: E402, F401  Registers ours.
from benchmarks.measure import (  # noqa: E402
    bytes_kept,
    interleaved_times,
    machine,
    markdown,
    peak_bytes,
)
from polynl_mmdet.errors import one_line_errors  # noqa: E402

LAYERS = {
    'PolyNL': dict(type='PolyNL', context_norm=dict(type='LN')),
    'NonLocal2d': dict(type='NonLocal2d', reduction=2),
    'ContextBlock': dict(type='ContextBlock', ratio=1 / 16),
}
CHANNELS = 256
LEVELS = {'P2': (200, 336), 'P3': (100, 168), 'P4': (50, 84), 'P5': (25, 42)}
# N x N matrices of float32 that a training step of NonLocal2d holds at once: the softmax's result,
# its gradient, and the gradient of its input.
NON_LOCAL_MATRICES = 3


def step_bytes(name: str, positions: int) -> int:
    """int: bytes that a step's N x N matrices take; the layers without any need little more than
    their input."""
    return 4 * NON_LOCAL_MATRICES * positions**2 if name == 'NonLocal2d' else 0


def step(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    """Run a forward and a backward pass."""
    torch.autograd.grad(layer(x), (x, *layer.parameters()), grad)


def forward(layer: nn.Module, x: Tensor) -> None:
    """Run a forward pass alone."""
    with torch.no_grad():
        layer(x)


def measure(shape: tuple[int, int, int], args: argparse.Namespace) -> dict[str, dict]:
    """Measure every layer that fits on one level.

    Args:
        shape (tuple[int, int, int]): C, H, W; one image.
        args (argparse.Namespace): The command line.

    Returns:
        dict[str, dict]: For each layer seconds ``forward`` and ``step`` (forward and backward),
        bytes ``kept`` for the backward pass and ``peak`` of a step, and ``parameters``; or the
        bytes that it ``needs``.
    """
    x, grad = torch.randn(1, *shape, requires_grad=True), torch.randn(1, *shape)
    rows: dict[str, dict] = {}
    runs = {}
    for name, cfg in LAYERS.items():
        torch.manual_seed(0)
        layer = MODELS.build(dict(cfg, in_channels=shape[0]))
        needs = step_bytes(name, shape[1] * shape[2])
        if needs > 1e9 * args.memory:
            rows[name] = {'needs': needs}
            continue
        runs[name, 'forward'] = partial(forward, layer, x)
        runs[name, 'step'] = partial(step, layer, x, grad)
        rows[name] = {
            'parameters': sum(p.numel() for p in layer.parameters()),
            'kept': bytes_kept(partial(layer, x), list(layer.parameters())),
            'peak': peak_bytes(runs[name, 'step'], 'cpu'),
        }
    times = interleaved_times(runs, 'cpu', args.budget, args.rounds, warm_up=1)
    for (name, quantity), seconds in times.items():
        rows[name][quantity] = statistics.median(seconds)
    return rows


def table(levels: dict[str, dict[str, dict]], sizes: dict[str, tuple[int, int]]) -> str:
    """str: Markdown, a row a level and layer."""
    lines = []
    for level, rows in levels.items():
        for name, row in rows.items():
            cells = [f'{level}, {sizes[level][0]} x {sizes[level][1]}', name]
            if 'needs' in row:
                lines.append([*cells, '', '', '', '', f'needs {row["needs"] / 1e9:.0f} GB'])
                continue
            cells += [f'{row["parameters"]:,}']
            cells += [f'{1e3 * row[quantity]:.1f}' for quantity in ('forward', 'step')]
            lines.append(cells + [f'{row[quantity] / 1e6:.0f}' for quantity in ('kept', 'peak')])
    header = ['level', 'layer', 'parameters', 'forward ms', 'step ms', 'kept MB', 'peak MB']
    return markdown(header, lines)


def main() -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument('--budget', type=float, default=20.0, help='seconds of rounds a level')
    parser.add_argument('--rounds', type=int, default=3, help='rounds at least')
    parser.add_argument('--memory', type=float, default=8.0, help='GB that one layer may take')
    parser.add_argument('--quick', action='store_true', help='tiny shapes: a check that it runs')
    parser.add_argument('--output', type=Path, help='JSON file')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    channels, sizes = CHANNELS, LEVELS
    if args.quick:
        channels, args.budget, args.rounds = 32, 0.0, 1
        sizes = {level: (height // 25, width // 21) for level, (height, width) in LEVELS.items()}
    report = {
        'command': ' '.join(['python benchmarks/pyramid_levels.py', *sys.argv[1:]]),
        'machine': machine('cpu'),
        'levels': {level: measure((channels, *size), args) for level, size in sizes.items()},
    }
    print(f'{report["machine"]}\n\n{table(report["levels"], sizes)}')
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    with one_line_errors():
        main()
