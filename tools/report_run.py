"""Report on a training of any detector: curves, test metrics, confusion matrix, images.

Tests the last checkpoint of a work folder with the test settings of its config and writes into
WORK_DIR/report: ``curves.png`` (losses and AP), ``confusion_matrix.png`` and ``images.jpg`` (the
first test images, annotation left, prediction right).

Examples:
    python tools/report_run.py work_dirs/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco
    python tools/report_run.py work_dirs/my_faces work_dirs/my_faces/best_hard.pth --tta
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, help='work folder of tools/train.py')
    parser.add_argument('checkpoint', type=Path, nargs='?', help="default: the folder's last one")
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--score-thr', type=float, default=0.5, help='of drawn and counted predictions'
    )
    parser.add_argument('--images', type=int, default=8, help='images to draw (default: 8)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='KEY=VALUE ...')
    return parser.parse_args(args)


if __name__ == '__main__':
    parse_args()  # --help, before the slow imports

import cv2
import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from polynl_mmdet.engine import force_weights_only
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.runs import ap_keys, config_of, read_log

MIN_SIDE = 480  # pixels; smaller images are enlarged before boxes and labels are drawn
MAX_LABELS = 30  # classes; the matrix of more has no numbers


class CollectHook(Hook):
    """Count hits (at IoU 0.5) and errors per class, and draw the first images into a folder."""

    def __init__(self, folder: Path, images: int, score_thr: float) -> None:
        self.folder = folder
        self.images = images
        self.score_thr = score_thr
        self.seen = 0

    def before_test(self, runner: Runner) -> None:
        """Make an empty matrix: rows are annotations, columns predictions, background last."""
        self.dataset = runner.test_dataloader.dataset
        self.classes = tuple(self.dataset.metainfo['classes'])
        self.matrix = np.zeros((len(self.classes) + 1,) * 2, dtype=int)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=()):
        """Add a batch of data samples."""
        for sample in outputs:
            sample = sample.cpu()
            self._count(sample.pred_instances)
            if self.seen < self.images:
                image, sample = _enlarged(mmcv.imread(sample.img_path, channel_order='rgb'), sample)
                file = self.folder / f'{self.seen:03d}_{Path(sample.img_path).stem}.png'
                runner.visualizer.add_datasample(
                    file.name, image, sample, pred_score_thr=self.score_thr, out_file=str(file)
                )
            self.seen += 1

    def _count(self, predictions: InstanceData) -> None:
        """Match predictions to annotations of any class, best score first, each once."""
        annotations = self.dataset.get_data_info(self.seen)['instances']
        ignored = np.array([a.get('ignore_flag', 0) for a in annotations], dtype=bool)
        free = ~ignored
        predictions = predictions[predictions.scores > self.score_thr]
        boxes = torch.tensor([a['bbox'] for a in annotations], dtype=torch.float32).reshape(-1, 4)
        ious = bbox_overlaps(predictions.bboxes.float(), boxes).numpy()
        for index in predictions.scores.argsort(descending=True).tolist():
            hits = ious[index] >= 0.5
            row = len(self.classes)
            if (hits & free).any():
                best = np.where(hits & free, ious[index], -1).argmax()
                free[best] = False
                row = annotations[best]['bbox_label']
            elif (hits & ignored).any():
                continue
            self.matrix[row, int(predictions.labels[index])] += 1
        for annotation in (a for a, missed in zip(annotations, free) if missed):
            self.matrix[annotation['bbox_label'], -1] += 1


def _enlarged(image: np.ndarray, sample: DetDataSample) -> tuple[np.ndarray, DetDataSample]:
    """Enlarge a small image and what lies on it, so that labels do not cover it."""
    factor = max(1, round(MIN_SIDE / max(image.shape[:2])))
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    for instances in (sample.get('gt_instances'), sample.get('pred_instances')):
        for name in ('bboxes', 'keypoints'):
            if instances is not None and name in instances:
                instances[name] = instances[name] * factor
        if instances is not None and 'masks' in instances:
            masks = instances.masks
            instances.masks = (
                masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
                if isinstance(masks, torch.Tensor)
                else masks.resize(image.shape[:2])
            )
    return image, sample


def plot_curves(work_dir: Path, out: Path) -> None:
    """Plot the losses and, where the training was validated, AP."""
    training, validation = read_log(work_dir)
    keys = ap_keys(validation)
    figure = Figure(figsize=(14, 4), layout='constrained')
    axes = figure.subplots(1, 1 + bool(keys), squeeze=False)[0]
    for key in sorted(key for key in training[-1] if 'loss' in key):
        points = [(record['step'], record[key]) for record in training if key in record]
        axes[0].plot(*zip(*points), marker='.', markevery=[-1], label=key, lw=1 + (key == 'loss'))
    axes[0].set(xlabel='iteration', ylabel='loss', yscale='log')
    for key in keys:
        points = [(record['step'], record[key]) for record in validation if key in record]
        axes[1].plot(*zip(*points), marker='o', label=key)
    if keys:
        axes[1].set(xlabel='epoch' if 'epoch' in training[-1] else 'iteration', ylabel='AP')
        axes[1].set(ylim=(0, 1.02))
    for axis in axes:
        axis.grid(alpha=0.3, which='both')
        axis.legend(loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(out, dpi=110)


def plot_confusion(matrix: np.ndarray, classes: tuple[str, ...], score_thr: float, out: Path):
    """Plot a confusion matrix: colours are shares of a row, numbers are counts."""
    names = [*classes, 'background']
    side = 3 + 0.35 * len(names)
    figure = Figure(figsize=(side + 1, side), layout='constrained')
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    if len(names) <= MAX_LABELS:
        for (row, column), count in np.ndenumerate(matrix):
            colour = 'white' if shares[row, column] > 0.5 else 'black'
            axis.text(column, row, count or '', ha='center', va='center', color=colour)
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel='prediction', ylabel='annotation')
    axis.set_title(f'IoU 0.5, scores above {score_thr:g}', fontsize='medium')
    figure.savefig(out, dpi=110)


def contact_sheet(files: list[Path], out: Path, columns: int = 2) -> None:
    """Put images on one sheet, each at the upper left of its cell."""
    tiles = [cv2.imread(str(file)) for file in files]
    height, width = (8 + max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    cv2.imwrite(str(out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])


def load_config(work_dir: Path, checkpoint: Path | None, tta: bool) -> Config:
    """Read the config of a training, ready to test a checkpoint (None: its last one)."""
    cfg = Config.fromfile(config_of(work_dir))
    if checkpoint is None:
        pointer = work_dir / 'last_checkpoint'
        if not pointer.is_file():
            raise InputError(f'{work_dir}: no last_checkpoint, has the training saved one?')
        checkpoint = work_dir / Path(pointer.read_text().strip()).name
    if not checkpoint.is_file():
        raise InputError(f'{checkpoint}: no such checkpoint')
    cfg.load_from = str(checkpoint)
    cfg.resume = False
    if tta:
        if 'tta_model' not in cfg:
            raise InputError(f'{cfg.filename}: --tta needs tta_model and tta_pipeline')
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    return cfg


def report(
    work_dir: Path,
    checkpoint: Path | None = None,
    tta: bool = False,
    score_thr: float = 0.5,
    images: int = 8,
    cfg_options: dict | None = None,
) -> dict[str, float]:
    """Write curves, confusion matrix and images into WORK_DIR/report; return the test's metrics.

    Args as on the command line.
    """
    out = work_dir / 'report'
    cfg = load_config(work_dir, checkpoint, tta)
    cfg.merge_from_dict(cfg_options or {})
    cfg.work_dir = str(out)
    shutil.rmtree(out, ignore_errors=True)
    collect = CollectHook(out / 'images', images, score_thr)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(collect)
    metrics = runner.test()
    plot_curves(work_dir, out / 'curves.png')
    plot_confusion(collect.matrix, collect.classes, score_thr, out / 'confusion_matrix.png')
    drawn = sorted((out / 'images').glob('*.png'))
    if drawn:
        contact_sheet(drawn[:images], out / 'images.jpg')
    return metrics


if __name__ == '__main__':
    opts = parse_args()
    with one_line_errors():
        force_weights_only()
        for name, value in report(**vars(opts)).items():
            print(f'{name:30} {value:.4f}')
    print(f'curves, confusion matrix, images: {opts.work_dir / "report"}')
