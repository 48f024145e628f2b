"""Score detections on WIDER FACE by its official protocol.

    python tools/eval_wider_face.py PRED [PRED ...] GT_DIR [--json FILE] [--plot FILE.png]
        [--images DIR --misses FILE.png] [--subset] [--iou T] [--file-order]

PRED is a folder or a zip of prediction files in the official layout, EVENT/NAME.txt: a name, the
number of detections, and for each "x y width height score". GT_DIR holds the official
wider_{face,easy,medium,hard}_val.mat. Prints the three APs of each PRED.

Examples:
    python tools/eval_wider_face.py mine.zip theirs.zip ground_truth --plot curves.png
    python tools/eval_wider_face.py mine.zip ground_truth --images WIDER_val/images --misses m.png
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

if __name__ == '__main__':
    # Not needed here, and slow to import.
    sys.modules.update(dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmdet')))

import numpy as np

from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.wider_face import (
    WiderFaceGroundTruth,
    WiderFaceScores,
    read_ground_truth,
    read_predictions,
    score_wider_face,
)
from polynl_mmdet.wider_face.average_precision import box_iou

MAX_NAMED = 5
FOUND_SCORE = 0.5  # Of the range of scores: detections below it do not count as found in --misses.
MISSES = (4, 6)  # Rows and columns of the sheet.
MAX_DRAWN = 3  # Detections around a missed face.
BOX_FORMS = {
    'x1 y1 x2 y2': lambda a, b, c, d: (a, b, c - a, d - b),
    'cx cy width height': lambda a, b, c, d: (a - c / 2, b - d / 2, c, d),
}


def parse_args() -> argparse.Namespace:
    """Parse this tool's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('pred', metavar='PRED', nargs='+', help='folder or zip of prediction files')
    parser.add_argument('gt_dir', metavar='GT_DIR', help='folder of the wider_*_val.mat files')
    parser.add_argument('--json', metavar='FILE', help='write the APs in full precision')
    parser.add_argument('--plot', metavar='FILE.png', help='draw the precision-recall curves')
    parser.add_argument('--images', metavar='DIR', type=Path, help='folder of the event folders')
    parser.add_argument('--misses', metavar='FILE.png', help='draw what the first PRED misses')
    parser.add_argument('--subset', action='store_true', help='skip images without predictions')
    parser.add_argument('--iou', type=float, default=0.5, help='min IoU (default: 0.5)')
    parser.add_argument(
        '--file-order',
        action='store_true',
        help='do not sort detections by score: as the Python port of the official tools does',
    )
    return parser.parse_args()


def read(path: str, truth: WiderFaceGroundTruth, gt_dir: str) -> dict[str, np.ndarray]:
    """Read prediction files, and print what is odd in them."""
    with warnings.catch_warnings(record=True) as odd:
        warnings.simplefilter('always')
        predictions, unmatched = read_predictions(path, truth.index)
    for warning in odd:
        print(warning.message)
    if not predictions:
        found = unmatched[0] if unmatched else 'no file'
        raise InputError(
            f'{path}: none of {len(unmatched)} files is for an image of {gt_dir}: got {found}, '
            f'expected EVENT/NAME.txt such as {truth.images[0]}.txt'
        )
    if unmatched:
        names = [ascii(name)[1:-1] for name in unmatched[:MAX_NAMED]]
        more = ', ...' if len(unmatched) > MAX_NAMED else ''
        print(f'{len(unmatched)} files match no image: {", ".join(names)}{more}')
    return predictions


def explain_no_match(
    predictions: dict[str, np.ndarray],
    truth: WiderFaceGroundTruth,
    scores: WiderFaceScores,
    args: argparse.Namespace,
) -> str:
    """Return why next to no face is found, as far as the numbers tell; '' if enough are."""
    counted = truth.counted['hard']
    tested = np.repeat([name in predictions for name in truth.images], np.diff(truth.starts))
    tested = int((counted & tested).sum())
    faces = tested if args.subset else int(counted.sum())
    detections = np.concatenate(list(predictions.values()))
    found = round(float(scores.curves['hard'][-1, 0] * faces))
    if not tested or not len(detections) or found >= 0.1 * tested:
        return ''
    reason = f'{len(detections)} detections match {found} of {tested} faces'
    if detections[:, :4].max() < 1.5:
        return f'{reason}: all coordinates are below 1.5, expected pixels of the original image'
    for form, convert in BOX_FORMS.items():
        others = {
            name: np.column_stack([*convert(*rows[:, :4].T), rows[:, 4]])
            for name, rows in predictions.items()
        }
        recall = score_wider_face(others, truth, args.iou, args.subset).curves['hard'][-1, 0]
        if recall * faces > max(5 * found, 0.1 * tested):
            matched = f'read as {form} they would match {recall * faces:.0f}'
            return f'{reason}: {matched}, expected x y width height'
    if found >= 0.01 * tested:
        return ''
    return f'{reason}: expected x y width height in pixels of the original image'


def plot_curves(results: dict[str, WiderFaceScores], path: str) -> None:
    """Draw precision over recall: a panel for each setting, a curve for each detector."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), layout='constrained')
    panels = figure.subplots(1, 3, sharey=True)
    colours = {name: f'C{index % 10}' for index, name in enumerate(results)}  # alike in all panels
    for setting, axes in zip(('easy', 'medium', 'hard'), panels):
        for name, scores in sorted(results.items(), key=lambda item: -item[1].ap[setting]):
            label = f'{name} {scores.ap[setting]:.3f}'
            axes.plot(*scores.curves[setting].T, label=label, color=colours[name])
        axes.set(title=setting.capitalize(), xlabel='Recall', xlim=(0, 1), ylim=(0, 1.01))
        axes.grid(alpha=0.3)
        axes.legend(loc='lower left', fontsize=9, title='AP', alignment='left')
    panels[0].set_ylabel('Precision')
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:  # an unknown suffix
        raise InputError(f'--plot: {path} ({error})') from None


def find_misses(
    predictions: dict[str, np.ndarray], truth: WiderFaceGroundTruth, iou_thr: float
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return the faces of the Hard setting that are not found, largest first.

    Each is ``EVENT/NAME``, the face's x, y, width, height, and all detections of the image.
    """
    all_scores = np.concatenate([rows[:, 4] for rows in predictions.values()])
    low, high = all_scores.min(initial=0), all_scores.max(initial=0)
    corners = lambda rows: np.column_stack([rows[:, :2], rows[:, :2] + rows[:, 2:4]])  # noqa: E731
    misses = []
    for name, rows in predictions.items():
        image = truth.index[name]
        part = slice(truth.starts[image], truth.starts[image + 1])
        faces = truth.boxes[part][truth.counted['hard'][part]]
        sure = rows[rows[:, 4] >= low + FOUND_SCORE * (high - low)]
        best = box_iou(corners(faces), corners(sure)).max(axis=1, initial=0)
        misses += [(name, face, rows) for face in faces[best < iou_thr]]
    return sorted(misses, key=lambda miss: -miss[1][2] * miss[1][3])


def plot_misses(misses: list[tuple[str, np.ndarray, np.ndarray]], images: Path, path: str) -> None:
    """Draw the first misses: the face dashed, the surest detections around it with scores."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image

    figure = Figure(figsize=(2.6 * MISSES[1], 2.9 * MISSES[0]), layout='constrained')
    panels = figure.subplots(*MISSES)
    for axes in panels.flat:
        axes.axis('off')
    for axes, (name, (x, y, width, height), rows) in zip(panels.flat, misses):
        file = next((f for f in (images / name).parent.glob(f'{Path(name).name}.*')), None)
        if file is None:
            raise InputError(f'--images: no {name}.jpg in {images}')
        side = max(width, height, 16)
        left, top = max(x + width / 2 - 1.5 * side, 0), max(y + height / 2 - 1.5 * side, 0)
        with Image.open(file) as image:
            right, bottom = min(left + 3 * side, image.width), min(top + 3 * side, image.height)
            box = [round(value) for value in (left, top, right, bottom)]
            axes.imshow(image.convert('RGB').crop(box), extent=(box[0], box[2], box[3], box[1]))
        style = dict(fill=False, linewidth=1.2)
        axes.add_patch(Rectangle((x, y), width, height, color='lime', linestyle='--', **style))
        centres = rows[:, :2] + rows[:, 2:4] / 2
        rows = rows[((centres > (left, top)) & (centres < (right, bottom))).all(axis=1)]
        for row in rows[np.argsort(-rows[:, 4])][:MAX_DRAWN]:
            axes.add_patch(Rectangle(row[:2], *row[2:4], color='orange', **style))
            axes.text(*row[:2], f'{row[4]:.2f}', color='orange', fontsize=7, clip_on=True)
        axes.set(xlim=(box[0], box[2]), ylim=(box[3], box[1]))
        event, stem = name.split('/')
        axes.set_title(f'{event}\n{stem[-28:]}, {width:.0f} x {height:.0f}', fontsize=7)
    figure.suptitle(
        f'Missed faces (green, largest first) and detections with their scores (orange): '
        f'{min(len(misses), panels.size)} of {len(misses)}'
    )
    figure.savefig(path, dpi=120)


def main(args: argparse.Namespace) -> None:
    """Read, score, print and write."""
    for option in ('json', 'plot', 'misses'):
        path = getattr(args, option)
        if path is not None and not Path(path).parent.is_dir():
            raise InputError(f'--{option}: {path} is in a folder that does not exist')
    if (args.images is None) != (args.misses is None):
        raise InputError('--images and --misses: expected both or neither')
    names = [Path(path).stem for path in args.pred]
    names = names if len(set(names)) == len(names) else args.pred
    truth = read_ground_truth(args.gt_dir)
    results, tested = {}, []
    for name, path in zip(names, args.pred):
        begin = time.perf_counter()
        if len(names) > 1:
            print(f'{name}:')
        predictions = read(path, truth, args.gt_dir)
        tested.append(predictions)
        scores = score_wider_face(predictions, truth, args.iou, args.subset, args.file_order)
        seconds = time.perf_counter() - begin
        if scores.missing:
            effect = 'skipped (--subset)' if args.subset else 'counted as no detections'
            print(f'{scores.missing} images without a prediction file, {effect}')
        detections = sum(len(rows) for rows in predictions.values())
        print(f'{len(predictions)} files, {detections} detections: {seconds:.2f} s')
        for setting, ap in scores.ap.items():
            print(f'{setting:<6} ' + ('no faces' if math.isnan(ap) else f'{ap:.4f}'))
        reason = explain_no_match(predictions, truth, scores, args)
        if reason:
            print(f'warning: {reason}')
        results[name] = scores
    if args.json is not None:
        aps = {}
        for name, scores in results.items():  # JSON has no NaN: a setting without faces is null.
            aps[name] = {key: None if math.isnan(ap) else ap for key, ap in scores.ap.items()}
        aps = aps if len(aps) > 1 else next(iter(aps.values()))
        Path(args.json).write_text(json.dumps(aps, indent=2) + '\n', encoding='utf-8')
    if args.plot is not None:
        plot_curves(results, args.plot)
    if args.misses is not None:
        plot_misses(find_misses(tested[0], truth, args.iou), args.images, args.misses)


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
