"""Score detections on WIDER FACE by its official protocol.

    python tools/eval_wider_face.py PRED GT_DIR [--json FILE] [--plot FILE.png] [--subset] [--iou T]
        [--file-order]

PRED is a folder or a zip of prediction files in the official layout, EVENT/NAME.txt: a name, the
number of detections, and for each "x y width height score". GT_DIR holds the official
wider_{face,easy,medium,hard}_val.mat. Prints the three APs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.wider_face import (
    WiderFaceScores,
    read_ground_truth,
    read_predictions,
    score_wider_face,
)

MOST_NAMED = 50


def parse_args() -> argparse.Namespace:
    """Parse this tool's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('pred', metavar='PRED', help='folder or zip of prediction files')
    parser.add_argument('gt_dir', metavar='GT_DIR', help='folder of the wider_*_val.mat files')
    parser.add_argument('--json', metavar='FILE', help='write the APs in full precision')
    parser.add_argument('--plot', metavar='FILE.png', help='draw the precision-recall curves')
    parser.add_argument(
        '--subset', action='store_true', help='count only faces of images with a prediction file'
    )
    parser.add_argument('--iou', type=float, default=0.5, help='smallest IoU (default: 0.5)')
    parser.add_argument(
        '--file-order',
        action='store_true',
        help='take detections in the order of their file, as the Python port of the official tools '
        'does, instead of sorted by score, as the official tools do',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Read, score, print and write."""
    for option in ('json', 'plot'):
        path = getattr(args, option)
        if path is not None and not Path(path).parent.is_dir():
            raise InputError(f'--{option}', f'{path} in a folder that does not exist')
    begin = time.perf_counter()
    ground_truth = read_ground_truth(args.gt_dir)
    predictions, unmatched = read_predictions(args.pred, ground_truth.index)
    if not predictions:
        raise InputError(
            args.pred,
            f'{len(unmatched)} files, none for an image of {args.gt_dir}',
            'accepted: EVENT/NAME.txt',
        )
    scores = score_wider_face(predictions, ground_truth, args.iou, args.subset, args.file_order)
    seconds = time.perf_counter() - begin

    for name in unmatched[:MOST_NAMED]:
        print(f'matches no image: {name.encode("ascii", "backslashreplace").decode()}')
    if len(unmatched) > MOST_NAMED:
        print(f'matches no image: {len(unmatched) - MOST_NAMED} more files')
    if scores.missing:
        effect = 'left out (--subset)' if args.subset else 'counted as no detections'
        print(f'{scores.missing} images without a prediction file, {effect}')
    detections = sum(len(rows) for rows in predictions.values())
    print(f'{len(predictions)} files, {detections} detections: read and scored in {seconds:.2f} s')
    for setting, ap in scores.ap.items():
        print(f'{setting:<6} ' + ('no faces' if math.isnan(ap) else f'{ap:.4f}'))
    if args.json is not None:
        # JSON knows no NaN: a setting without faces is null.
        aps = {name: None if math.isnan(ap) else ap for name, ap in scores.ap.items()}
        Path(args.json).write_text(json.dumps(aps, indent=2) + '\n', encoding='utf-8')
    if args.plot is not None:
        plot(scores, args.plot)


def plot(scores: WiderFaceScores, path: str) -> None:
    """Draw the precision-recall curves of the three settings."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5))
    for setting, curve in scores.curves.items():
        axes.plot(*curve.T, label=f'{setting} {scores.ap[setting]:.4f}')
    axes.set(xlabel='Recall', ylabel='Precision', xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(loc='lower left')
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise InputError('--plot', f'{path} ({error})') from None


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
