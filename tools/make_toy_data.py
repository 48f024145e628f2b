"""Makes drawn data sets for demos and tests: the same seed gives the same files.

Examples:
    python tools/make_toy_data.py coco data/toy_coco --train 400 --val 80 --seed 0
    python tools/make_toy_data.py wider data/toy_wider --train 400 --val 80 --seed 0
    python tools/make_toy_data.py far-cue data/toy_far_cue --train 400 --val 100 --seed 0
"""

from __future__ import annotations

import argparse

from polynl_mmdet.errors import one_line_errors


def make_coco(args: argparse.Namespace) -> None:
    """Overlapping shapes with masks, COCO layout."""
    from polynl_mmdet.datasets.toy_coco import make_toy_coco

    make_toy_coco(args.out, args.train, args.val, args.seed, args.size, args.overwrite)
    print(f'wrote {args.train} + {args.val} pictures with masks to {args.out}')


def make_wider(args: argparse.Namespace) -> None:
    """Drawn faces with landmarks, WIDER FACE layout."""
    from polynl_mmdet.datasets.toy_wider import make_toy_wider

    make_toy_wider(args.out, args.train, args.val, args.seed, args.size, args.overwrite)
    print(f'wrote {args.train} + {args.val} pictures with faces to {args.out}')


def make_far_cue(args: argparse.Namespace) -> None:
    """Shapes whose class is decided by something far away, COCO layout."""
    from polynl_mmdet.datasets.toy_far_cue import make_toy_far_cue

    make_toy_far_cue(args.out, args.train, args.val, args.seed, args.overwrite)
    print(f'wrote {args.train} + {args.val} pictures with a far cue to {args.out}')


def parse_args() -> argparse.Namespace:
    """argparse.Namespace: this tool's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True, metavar='KIND')
    coco = kinds.add_parser('coco', help='overlapping shapes with masks, COCO layout')
    coco.set_defaults(make=make_coco)
    coco.add_argument('out', help='folder to write')
    coco.add_argument('--train', type=int, default=400, help='training pictures')
    coco.add_argument('--val', type=int, default=80, help='validation pictures')
    coco.add_argument('--seed', type=int, default=0, help='seed of all randomness')
    coco.add_argument('--size', type=int, default=160, help='side of a picture in pixels')
    coco.add_argument('--overwrite', action='store_true', help='write over existing toy data')
    wider = kinds.add_parser('wider', help='drawn faces with landmarks, WIDER FACE layout')
    wider.set_defaults(make=make_wider)
    wider.add_argument('out', help='folder to write')
    wider.add_argument('--train', type=int, default=400, help='training pictures')
    wider.add_argument('--val', type=int, default=80, help='validation pictures')
    wider.add_argument('--seed', type=int, default=0, help='seed of all randomness')
    wider.add_argument('--size', type=int, default=256, help='side of a picture in pixels')
    wider.add_argument('--overwrite', action='store_true', help='write over existing toy data')
    cue = kinds.add_parser('far-cue', help='the class is decided by a far cue, COCO layout')
    cue.set_defaults(make=make_far_cue)
    cue.add_argument('out', help='folder to write')
    cue.add_argument('--train', type=int, default=400, help='training pictures')
    cue.add_argument('--val', type=int, default=100, help='validation pictures')
    cue.add_argument('--seed', type=int, default=0, help='seed of all randomness')
    cue.add_argument('--overwrite', action='store_true', help='write over existing toy data')
    return parser.parse_args()


if __name__ == '__main__':
    with one_line_errors():
        arguments = parse_args()
        arguments.make(arguments)
