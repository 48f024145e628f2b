"""Say what of WIDER FACE is in a folder, and where to get what is missing.

    python tools/check_wider_face.py ROOT [--no-decode]

ROOT holds WIDER_train, WIDER_val, wider_face_split and so on. Images and faces are counted
against the published totals, and every image is decoded. The exit status is 1 if something needed
is missing or broken.
"""

from __future__ import annotations

import argparse

from polynl_mmdet.errors import one_line_errors
from polynl_mmdet.wider_face.layout import Part, check_layout

MOST_NAMED = 20


def parse_args() -> argparse.Namespace:
    """Parse this tool's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', metavar='ROOT', help='folder that holds WIDER_train and so on')
    parser.add_argument('--no-decode', action='store_true', help='count images without reading')
    parser.add_argument('--workers', type=int, default=4, help='threads that decode (default: 4)')
    return parser.parse_args()


def show(part: Part) -> None:
    """Print one part."""
    if part.missing:
        print(f'{"not there" if part.optional else "MISSING":<10} {part.name}')
        print(f'{"":<10} get {part.source}')
        return
    whole = all(found == published for _, found, published in part.counts if published)
    state = 'BROKEN' if part.problems else 'complete' if whole else 'partial'
    print(f'{state:<10} {part.name}')
    for what, found, published in part.counts:
        print(f'{"":<10} {found:,} {what}' + (f' of {published:,}' if published else ''))
    for problem in part.problems[:MOST_NAMED]:
        print(f'{"":<10} {problem}')
    if len(part.problems) > MOST_NAMED:
        print(f'{"":<10} and {len(part.problems) - MOST_NAMED} more')


def main() -> int:
    """Check and print; return 1 if something needed is missing or broken."""
    args = parse_args()
    parts = check_layout(args.root, not args.no_decode, args.workers)
    for part in parts:
        show(part)
    return int(any(part.problems or (part.missing and not part.optional) for part in parts))


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
