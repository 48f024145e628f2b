"""Make drawn data sets for demos and tests: the same seed gives the same files.

Examples:
    python tools/make_toy_data.py coco data/toy_coco --train 400 --val 80 --seed 0
    python tools/make_toy_data.py wider data/toy_wider --train 400 --val 80 --seed 0
    python tools/make_toy_data.py far-cue data/toy_far_cue --train 400 --val 100 --seed 0
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from polynl_mmdet.errors import one_line_errors


def make_coco(args: argparse.Namespace) -> None:
    """Draw overlapping shapes with masks, in COCO's layout."""
    from polynl_mmdet.datasets.toy.coco import make_toy_coco

    make_toy_coco(args.out, args.train, args.val, args.seed, args.size, args.overwrite)
    print(f'wrote {args.train} + {args.val} images with masks to {args.out}')


def make_wider(args: argparse.Namespace) -> None:
    """Draw faces with landmarks, in the layout of WIDER FACE."""
    from polynl_mmdet.datasets.toy.wider import make_toy_wider

    make_toy_wider(args.out, args.train, args.val, args.seed, args.size, args.overwrite)
    print(f'wrote {args.train} + {args.val} images with faces to {args.out}')


def make_far_cue(args: argparse.Namespace) -> None:
    """Draw shapes whose class is decided by something far away, in COCO's layout."""
    from polynl_mmdet.datasets.toy.far_cue import make_toy_far_cue

    make_toy_far_cue(args.out, args.train, args.val, args.seed, args.overwrite)
    print(f'wrote {args.train} + {args.val} images with a far cue to {args.out}')


def _add_kind(
    kinds: argparse._SubParsersAction, name: str, make: Callable, val: int
) -> argparse.ArgumentParser:
    kind = kinds.add_parser(name, help=make.__doc__, description=make.__doc__)
    kind.set_defaults(make=make)
    kind.add_argument('out', help='folder to write')
    kind.add_argument('--train', type=int, default=400, help='training images')
    kind.add_argument('--val', type=int, default=val, help='validation images')
    kind.add_argument('--seed', type=int, default=0, help='seed of all randomness')
    kind.add_argument('--overwrite', action='store_true', help='write over existing toy data')
    return kind


def parse_args() -> argparse.Namespace:
    """Parse this tool's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True, metavar='KIND')
    coco = _add_kind(kinds, 'coco', make_coco, val=80)
    coco.add_argument('--size', type=int, default=160, help='side of an image in pixels')
    wider = _add_kind(kinds, 'wider', make_wider, val=80)
    wider.add_argument('--size', type=int, default=256, help='side of an image in pixels')
    _add_kind(kinds, 'far-cue', make_far_cue, val=100)
    return parser.parse_args()


if __name__ == '__main__':
    with one_line_errors():
        arguments = parse_args()
        arguments.make(arguments)
