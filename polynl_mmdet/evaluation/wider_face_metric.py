"""The official protocol of WIDER FACE as an mmengine metric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from polynl_mmdet.wider_face import read_ground_truth, score_wider_face, write_predictions


@METRICS.register_module()
class WIDERFaceMetric(BaseMetric):
    """AP of the Easy, Medium and Hard settings of WIDER FACE.

    Gives ``wider_face/easy``, ``wider_face/medium`` and ``wider_face/hard``. Data samples have
    ``pred_instances`` with ``bboxes`` (x1, y1, x2, y2 in pixels of the original image, shape (n,
    4)) and ``scores`` (shape (n,)), and ``img_path`` that ends in ``EVENT/NAME.jpg``. See
    :mod:`polynl_mmdet.wider_face.average_precision` for the rules. For faces of your own, which
    have no ``.mat`` files, use mmdet's ``VOCMetric``.

    Args:
        gt_dir (str, optional): Folder with the four official ``wider_*_val.mat`` files. Not needed
            with ``format_only``. Defaults to None.
        subset (bool): Count only the faces of the images tested. Otherwise images that were not
            tested have no detections, and their number is logged. Defaults to False.
        iou_thr (float): Min IoU of a detection with its face. Defaults to 0.5.
        outfile_prefix (str, optional): Folder for the predictions in the official layout,
            ``EVENT/NAME.txt``; whole paths below the folder that all images share where two images
            have one ``EVENT/NAME``. Defaults to None: none are written.
        format_only (bool): Only write the predictions. Defaults to False.

    Raises:
        ValueError: If the arguments do not fit each other, the ground truth cannot be read, or a
            prediction is not a box with a score.
    """

    default_prefix = 'wider_face'

    def __init__(
        self,
        gt_dir: str | None = None,
        subset: bool = False,
        iou_thr: float = 0.5,
        outfile_prefix: str | None = None,
        format_only: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if format_only and outfile_prefix is None:
            raise ValueError('outfile_prefix: got None, expected a folder with format_only=True')
        if not format_only and gt_dir is None:
            raise ValueError('gt_dir: got None, expected the folder of the wider_*_val.mat files')
        if not 0 < iou_thr <= 1:
            raise ValueError(f'iou_thr: got {iou_thr}, expected more than 0, up to 1')
        self.gt_dir = gt_dir
        self.subset = subset
        self.iou_thr = iou_thr
        self.outfile_prefix = outfile_prefix
        self.format_only = format_only
        # Read now: an error before the test is better than one after it.
        self.ground_truth = None if format_only else read_ground_truth(gt_dir)

    def check_dataset(self, dataset: BaseDataset) -> None:
        """Raise ValueError if the ground truth has none of a dataset's images."""
        if self.ground_truth is None:
            return
        names = _image_names([dataset.get_data_info(i)['img_path'] for i in range(len(dataset))])
        if not any(name in self.ground_truth.index for name in names.values()):
            raise ValueError(
                f'{self.gt_dir}: none of the {len(names)} images of the dataset is in the ground '
                f'truth: got {next(iter(names.values()), None)!r}, expected EVENT/NAME such as '
                f"{self.ground_truth.images[0]!r}. For faces of your own use mmdet's VOCMetric"
            )

    def process(self, data_batch: dict, data_samples: Sequence) -> None:
        """Keep the detections of one batch, as the image's path and x, y, width, height, score."""
        del data_batch
        for sample in data_samples:
            path = str(sample.get('img_path')).replace('\\', '/')
            instances = sample.get('pred_instances')
            boxes, scores = (
                torch.as_tensor(instances.get(key)).detach().cpu().double().numpy()
                for key in ('bboxes', 'scores')
            )
            rows = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores])
            bad = ~np.isfinite(rows).all(axis=1) | (rows[:, 2:4] < 0).any(axis=1)
            if bad.any():
                found = np.column_stack([boxes, scores])[bad.argmax()].tolist()
                raise ValueError(f'{path}: got a detection {found}, expected x1 <= x2, y1 <= y2')
            self.results.append((path, rows))

    def compute_metrics(self, results: list[tuple[str, np.ndarray]]) -> dict[str, float]:
        """Score the detections of all processes; {} with ``format_only``."""
        names = _image_names([path for path, _ in results])
        # A distributed sampler repeats images to give all processes as many: the last is kept.
        predictions = {names[path]: rows for path, rows in results}
        if self.outfile_prefix is not None:
            write_predictions(self.outfile_prefix, predictions)
        if self.format_only:
            print_log(f'Predictions are in {self.outfile_prefix}', logger='current')
            return {}
        scores = score_wider_face(predictions, self.ground_truth, self.iou_thr, self.subset)
        if scores.unmatched:
            effect = f'and do not count: {", ".join(scores.unmatched[:20])}'
            print_log(
                f'{len(scores.unmatched)} images are not in the ground truth {effect}', 'current'
            )
        if scores.missing and not self.subset:
            effect = 'were not tested and count as images without detections'
            print_log(f'{scores.missing} images of the ground truth {effect}', logger='current')
        return scores.ap


def _image_names(paths: list[str]) -> dict[str, str]:
    """Name each image by ``EVENT/NAME``, by more of its path where that names two images."""
    paths = list(dict.fromkeys(paths))
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''
    below = [PurePosixPath(os.path.relpath(path, folder or '.')) for path in paths]
    for names in (
        ['/'.join(PurePosixPath(path).with_suffix('').parts[-2:]) for path in paths],
        [path.with_suffix('').as_posix() for path in below],
        [path.as_posix() for path in below],
    ):
        if len(set(names)) == len(paths):
            break
    return dict(zip(paths, names))
