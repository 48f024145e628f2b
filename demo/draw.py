"""Draw a data set for the demos or for tests; a seed always gives the same images.

Examples:
    python -m demo.draw coco data/toy_coco --train 400 --val 80     # shapes with masks
    python -m demo.draw wider data/toy_wider --train 400 --val 80   # faces with landmarks
"""

from __future__ import annotations

import argparse

from demo.toy_coco import make_toy_coco
from demo.toy_wider import make_toy_wider
from polynl_mmdet.errors import one_line_errors

KINDS = {'coco': make_toy_coco, 'wider': make_toy_wider}


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('kind', choices=KINDS, help='layout of the files')
    parser.add_argument('out', help='folder to write')
    parser.add_argument('--train', type=int, default=400, help='training images (default: 400)')
    parser.add_argument('--val', type=int, default=80, help='validation images (default: 80)')
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    parser.add_argument('--size', type=int, default=None, help='side of an image in pixels')
    args = parser.parse_args()
    size = {} if args.size is None else dict(size=args.size)
    with one_line_errors():
        KINDS[args.kind](args.out, args.train, args.val, args.seed, **size)
    print(f'drew {args.train} + {args.val} images in {args.out}')


if __name__ == '__main__':
    main()
