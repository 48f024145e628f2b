"""Print what a layer costs at every place in a ResNet, or draw the places.

    python tools/insertion_sites.py [--layer type=PolyNL] [--depth 50] [--input 800x1344]
    python tools/insertion_sites.py --plot docs/where_to_insert.svg

The places: after_conv1, after_conv2 and after_conv3 in every bottleneck of a stage (mmdet's
``plugins``), and right before the last block of a stage (``sites`` of SiteResNet). Sizes are taken
from the backbone itself, parameters and multiply-adds from mmengine's counter.

Examples:
    python tools/insertion_sites.py --layer type=NonLocal2d reduction=2 mode=embedded_gaussian
    python tools/insertion_sites.py --depth 101 --input 640x640
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from fractions import Fraction

import matplotlib
import torch
from mmdet.registry import MODELS
from mmengine.analysis import get_model_complexity_info
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from tqdm import tqdm

import polynl_mmdet  # noqa: F401  Registers the layers.
from polynl_mmdet.errors import InputError, one_line_errors

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

STAGES = ('c2', 'c3', 'c4', 'c5')
POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')
SITE = 'before the last block'
# Sides that layers which pool by 2, 3, 4, 6 or 12 divide evenly.
SMALL_MAPS = ((12, 12), (12, 24), (24, 24))


class Probe(nn.Module):
    """The identity, in a layer's place; records the shapes of its inputs."""

    _abbr_ = 'probe'
    seen: list[tuple[int, int, int]] = []

    def __init__(self, in_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, and record its (C, H, W) in ``seen``."""
        self.seen.append(tuple(x.shape[1:]))
        return x


def shapes(depth: int, position: str, stage: int, size: tuple[int, int]) -> list[tuple]:
    """Return (C, H, W) of every layer's input at a place, in a ResNet on an image of ``size``."""
    cfg = dict(type='SiteResNet', depth=depth)
    if position == SITE:
        cfg['sites'] = [dict(cfg=dict(type='Probe'), stage=STAGES[stage], before_block=-1)]
    else:
        chosen = tuple(index == stage for index in range(len(STAGES)))
        cfg['plugins'] = [dict(cfg=dict(type='Probe'), stages=chosen, position=position)]
    Probe.seen = []
    # On this device nothing is computed but shapes.
    with torch.device('meta'):
        MODELS.build(cfg)(torch.empty(1, 3, *size))
    return Probe.seen


def count(layer: dict, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Count the parameters and multiply-adds of one layer.

    Operations are at most of second degree in the number of positions, so that those on three
    small maps give those on any: a quadratic layer need not be run on a large one, where it might
    want more memory than there is.

    Args:
        layer (dict): Its config.
        shape (tuple[int, int, int]): (C, H, W).

    Returns:
        tuple[int, int]: Parameters and operations.

    Raises:
        InputError: The layer cannot be built.
    """
    channels, *sides = shape
    try:
        module = MODELS.build(dict(layer, in_channels=channels))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError('--layer', f'{layer} ({error})') from None
    known = {}
    for height, width in SMALL_MAPS:
        found = get_model_complexity_info(
            module, input_shape=(channels, height, width), show_table=False, show_arch=False
        )
        known[height * width] = int(found['flops'])
    return int(found['params']), round(_extrapolate(known, sides[0] * sides[1]))


def _extrapolate(known: dict[int, int], at: int) -> Fraction:
    """Evaluate the polynomial through all known values (Lagrange's form) at another place."""
    total = Fraction(0)
    for x, value in known.items():
        term = Fraction(value)
        for other in known.keys() - {x}:
            term *= Fraction(at - other, x - other)
        total += term
    return total


def table(layer: dict, depth: int, size: tuple[int, int]) -> list[list[str]]:
    """Return rows of place, stage, layers, channels, positions, parameters and operations."""
    rows, known = [], {}
    places = [(position, stage) for position in (*POSITIONS, SITE) for stage in range(len(STAGES))]
    for position, stage in tqdm(places, desc='counting', unit='place', leave=False):
        inputs = shapes(depth, position, stage, size)
        for shape in set(inputs) - known.keys():
            known[shape] = count(layer, shape)
        parameters, operations = (sum(known[shape][i] for shape in inputs) for i in (0, 1))
        sides = ', '.join(f'{h} x {w}' for h, w in dict.fromkeys(shape[1:] for shape in inputs))
        rows.append(
            [
                f'`{position}`' if position in POSITIONS else position,
                STAGES[stage],
                str(len(inputs)),
                str(inputs[0][0]),
                sides,
                f'{parameters / 1e6:.2f}',
                f'{operations / 1e9:.2f}',
            ]
        )
    return rows


def print_table(rows: list[list[str]]) -> None:
    """Print the rows as a table in Markdown."""
    header = ['place', 'stage', 'layers', 'C', 'H x W', 'M parameters', 'G multiply-adds']
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    ruler = ['-' * width for width in widths]
    for row in (header, ruler, *rows):
        print('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) + ' |')


# ------------------------------------------------------------------ the drawing

CONV, PLAIN, LAYER = '#dbe7f5', '#eeeeee', '#f6b26b'
HEIGHT = 0.62  # of a box in the drawing


def _box(axes, x: float, y: float, text: str, colour: str, size: Sequence[float]) -> None:
    width, height = size
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle='round,pad=0.02',
            facecolor=colour, edgecolor='#555555', linewidth=0.8,
        )
    )  # fmt: skip
    axes.text(x, y, text, ha='center', va='center', fontsize=8.5)


def _arrow(axes, start: Sequence[float], end: Sequence[float], **style) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle='-|>', mutation_scale=9, shrinkA=0, shrinkB=0,
            color='#333333', linewidth=0.9, **style,
        )
    )  # fmt: skip


def draw(path: str) -> None:
    """Draw a bottleneck with its three places, and a stage with the single site.

    Raises:
        InputError: The image cannot be written.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 6.6), layout='constrained')
    _draw_bottleneck(left)
    _draw_stage(right)
    for axes in (left, right):
        axes.set(aspect='equal')
        axes.axis('off')
    try:
        figure.savefig(path, facecolor='white')
    except (ValueError, OSError) as error:
        raise InputError('--plot', f'{path} ({error})') from None
    plt.close(figure)


def _draw_steps(axes, steps: list[tuple[str, str, str]]) -> float:
    """Draw boxes one under the other, with notes and arrows; return the last one's lower edge."""
    last = 0.3
    for index, (text, colour, note) in enumerate(steps):
        y = -0.75 - 1.1 * index
        _arrow(axes, (0, last), (0, y + HEIGHT / 2 + 0.02))
        _box(axes, 0, y, text, colour, (2.5, HEIGHT))
        axes.text(1.42, y, note, ha='left', va='center', fontsize=8, color='#444444')
        last = y - HEIGHT / 2 - 0.02
    return last


def _draw_bottleneck(axes) -> None:
    """Draw the places in every bottleneck of a stage: mmdet's ``plugins``."""
    steps = [
        ('conv1  1 x 1, BN, ReLU', CONV, '4P $\\to$ P'),
        ('after_conv1', LAYER, 'P channels'),
        ('conv2  3 x 3, BN, ReLU', CONV, 'P $\\to$ P'),
        ('after_conv2', LAYER, 'P channels'),
        ('conv3  1 x 1, BN', CONV, 'P $\\to$ 4P'),
        ('after_conv3', LAYER, '4P channels'),
    ]
    axes.set(xlim=(-2.6, 2.9), ylim=(-9.3, 0.9))
    axes.set_title('plugins: in every bottleneck of a stage', fontsize=10)
    axes.text(0, 0.45, 'input, 4P channels', ha='center', fontsize=8.5)
    last = _draw_steps(axes, steps)
    plus = -0.75 - 1.1 * len(steps)
    _arrow(axes, (0, last), (0, plus + 0.22))
    axes.add_patch(Circle((0, plus), 0.2, facecolor='white', edgecolor='#333333'))
    axes.text(0, plus, '+', ha='center', va='center', fontsize=11)
    axes.plot([0, -2.0, -2.0], [0.12, 0.12, plus], color='#333333', linewidth=0.9)
    _arrow(axes, (-2.0, plus), (-0.2, plus))
    axes.text(-2.1, plus / 2, 'shortcut', ha='right', va='center', rotation=90, fontsize=8.5)
    _arrow(axes, (0, plus - 0.2), (0, plus - 0.52))
    _box(axes, 0, plus - 0.84, 'ReLU', PLAIN, (1.2, HEIGHT))
    _arrow(axes, (0, plus - 1.17), (0, plus - 1.6))


def _draw_stage(axes) -> None:
    """Draw the place between two blocks of a stage: ``sites`` of SiteResNet."""
    axes.set(xlim=(-2.6, 2.9), ylim=(-9.3, 0.9))
    axes.set_title('sites of SiteResNet: one layer between two blocks', fontsize=10)
    axes.text(0, 0.45, "res3's output", ha='center', fontsize=8.5)
    steps = [(f'block {i}', PLAIN, 'bottleneck' if i else 'bottleneck, stride 2') for i in range(6)]
    steps.insert(5, ('the layer, 4P channels', LAYER, "stage='c4',\nbefore_block=-1"))
    last = _draw_steps(axes, steps)
    _arrow(axes, (0, last), (0, last - 0.55))
    axes.text(0, last - 0.85, 'to the pyramid and to res5', ha='center', fontsize=8.5)
    axes.text(-2.05, (-0.75 + last) / 2, 'res4 of ResNet-50 (c4)', rotation=90, va='center',
              ha='center', fontsize=8.5)  # fmt: skip


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--layer', nargs='+', action=DictAction, default={'type': 'PolyNL'}, metavar='KEY=VALUE',
        help='config of the layer (default: type=PolyNL)',
    )  # fmt: skip
    parser.add_argument('--depth', type=int, default=50, choices=(50, 101, 152))
    parser.add_argument('--input', default='800x1344', metavar='HxW', help='default: 800x1344')
    parser.add_argument('--plot', metavar='FILE', help='draw the places instead')
    return parser.parse_args(args)


def main(args: argparse.Namespace) -> None:
    """Print the table, or draw."""
    if args.plot:
        draw(args.plot)
        print(f'wrote {args.plot}')
        return
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', args.input)
    if not match:
        raise InputError('--input', repr(args.input), 'accepted: HEIGHTxWIDTH, such as 800x1344')
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    init_default_scope('mmdet')
    MODELS.register_module(module=Probe, force=True)
    rows = table(args.layer, args.depth, tuple(map(int, match.groups())))
    kind = args.layer.get('type')
    print(f'{kind} in a ResNet-{args.depth}, one image of {args.input}; sums over the layers\n')
    print_table(rows)


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
