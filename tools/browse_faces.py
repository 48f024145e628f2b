"""Draw faces and landmarks after each step of a config's training pipeline, to be looked at.

    python tools/browse_faces.py CONFIG --out faces.jpg [--images 3] [--cfg-options KEY=VALUE ...]

One row an image, one column a step. Boxes are green, ignored ones grey; left eye and left mouth
corner red, right ones blue, nose yellow; landmarks that are not annotated, or not loaded by the
pipeline, are not drawn.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import matplotlib
import numpy as np
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

import polynl_mmdet  # noqa: F401  Registers the datasets and transforms.
from polynl_mmdet.errors import InputError, one_line_errors

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

MARK_COLOURS = ('red', 'deepskyblue', 'yellow', 'red', 'deepskyblue')
INCHES = 2.4


def parse_args() -> argparse.Namespace:
    """Parse this tool's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument('--out', default='faces.jpg', help='image to write')
    parser.add_argument('--images', type=int, default=3, help='rows (default: 3)')
    parser.add_argument('--seed', type=int, default=0, help='seed of choice and transforms')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='as in train.py')
    return parser.parse_args()


def steps_of(info: dict, pipeline: list[dict]) -> list[tuple[str, dict]]:
    """Apply a pipeline, and keep what there is after each step that has boxes.

    Args:
        info (dict): What the dataset gives for an image.
        pipeline (list[dict]): Configs of the transforms.

    Returns:
        list[tuple[str, dict]]: Name of the transform, and copies of the results that are drawn.
    """
    steps = []
    results = info
    for config in pipeline:
        results = TRANSFORMS.build(config)(results)
        if results is None or 'img' not in results:
            break
        if 'gt_bboxes' in results:
            drawn = dict(
                img=results['img'].copy(),
                boxes=results['gt_bboxes'].numpy().copy(),
                ignored=results['gt_ignore_flags'].copy(),
                marks=results.get('gt_keypoints', np.zeros((0, 5, 2))).copy(),
                visible=results.get('gt_keypoints_visible', np.zeros((0, 5))).copy(),
            )
            steps.append((config['type'], drawn))
    return steps


def draw(axes: plt.Axes, drawn: dict) -> None:
    """Draw one image with its faces."""
    image = np.clip(drawn['img'], 0, 255).astype(np.uint8)[..., ::-1]
    height, width = image.shape[:2]
    axes.imshow(image)
    for box, ignored in zip(drawn['boxes'], drawn['ignored']):
        colour = 'grey' if ignored else 'lime'
        size = box[2:] - box[:2]
        axes.add_patch(Rectangle(box[:2], *size, fill=False, edgecolor=colour, linewidth=0.8))
    for marks, visible in zip(drawn['marks'], drawn['visible'] > 0):
        colours = [colour for colour, seen in zip(MARK_COLOURS, visible) if seen]
        axes.scatter(*marks[visible].T, c=colours, s=5, linewidths=0)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_xlabel(f'{width} x {height}', fontsize=6, labelpad=2)


def main(args: argparse.Namespace) -> None:
    """Choose images with faces, apply, draw and write."""
    if args.images < 1:
        raise InputError('--images', str(args.images), 'accepted: 1 or more')
    if not Path(args.config).is_file():
        raise InputError(args.config, 'no such config file')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope('mmdet')
    dataset_cfg = cfg.train_dataloader.dataset
    pipeline = dataset_cfg.pop('pipeline')
    dataset = DATASETS.build(dict(dataset_cfg, pipeline=[]))
    random.seed(args.seed)
    np.random.seed(args.seed)
    chosen = [
        index
        for index in np.random.permutation(len(dataset)).tolist()
        if dataset.get_data_info(index)['instances']
    ][: args.images]
    if not chosen:
        raise InputError(dataset.ann_file, 'no image with a face', 'accepted: at least one')
    rows = [steps_of(dataset.get_data_info(index), pipeline) for index in chosen]
    columns = max(len(row) for row in rows)
    figure, grid = plt.subplots(
        len(rows), columns, figsize=(INCHES * columns, INCHES * len(rows)), squeeze=False
    )
    for row, cells in zip(rows, grid):
        for (name, drawn), axes in zip(row, cells):
            draw(axes, drawn)
            axes.set_title(name, fontsize=7, pad=3)
    figure.tight_layout(pad=0.4)
    try:
        figure.savefig(args.out, dpi=100)
    except (ValueError, OSError) as error:
        raise InputError('--out', f'{args.out} ({error})') from None
    print(f'wrote {args.out}: {len(rows)} images after {columns} steps each')


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
