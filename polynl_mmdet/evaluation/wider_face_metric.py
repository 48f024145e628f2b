"""The official protocol of WIDER FACE as an mmengine metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face import read_ground_truth, score_wider_face, write_predictions


@METRICS.register_module()
class WIDERFaceMetric(BaseMetric):
    """AP of the Easy, Medium and Hard settings of WIDER FACE.

    Gives ``wider_face/easy``, ``wider_face/medium`` and ``wider_face/hard``. Data samples have
    ``pred_instances`` with ``bboxes`` (x1, y1, x2, y2 in pixels of the original image, shape (n,
    4)) and ``scores`` (shape (n,)), and ``img_path`` that ends in ``EVENT/NAME.jpg``. See
    :mod:`polynl_mmdet.wider_face.average_precision` for the rules.

    Args:
        gt_dir (str, optional): Folder with the four official ``wider_*_val.mat`` files. Not needed
            with ``format_only``. Defaults to None.
        subset (bool): Count only the faces of the images tested. Otherwise images that were not
            tested have no detections, and their number is logged. Defaults to False.
        iou_thr (float): Smallest IoU of a detection with its face. Defaults to 0.5.
        outfile_prefix (str, optional): Folder for the predictions in the official layout,
            ``EVENT/NAME.txt``. Defaults to None: none are written.
        format_only (bool): Only write the predictions, score nothing. Defaults to False.
        **kwargs: As in mmengine's ``BaseMetric``.

    Raises:
        InputError: If the arguments do not fit each other, the ground truth cannot be read, or a
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
        where = 'WIDERFaceMetric'
        if format_only and outfile_prefix is None:
            raise InputError(
                f'{where}.outfile_prefix', 'None', 'accepted with format_only: a folder'
            )
        if not format_only and gt_dir is None:
            accepted = 'accepted: the folder of the wider_*_val.mat files'
            raise InputError(f'{where}.gt_dir', 'None', accepted)
        if not 0 < iou_thr <= 1:
            raise InputError(f'{where}.iou_thr', str(iou_thr), 'accepted: more than 0, up to 1')
        self.subset = subset
        self.iou_thr = iou_thr
        self.outfile_prefix = outfile_prefix
        self.format_only = format_only
        # Read now: an error before the test is better than one after it.
        self.ground_truth = None if format_only else read_ground_truth(gt_dir)

    def process(self, data_batch: dict, data_samples: Sequence) -> None:
        """Keep one batch's detections, as the image's name and x, y, width, height, score."""
        del data_batch
        for sample in data_samples:
            path = PurePath(str(sample.get('img_path')).replace('\\', '/'))
            if len(path.parts) < 2:
                raise InputError('img_path', str(path), 'accepted: .../EVENT/NAME.jpg')
            instances = sample.get('pred_instances')
            boxes, scores = (
                torch.as_tensor(instances.get(key)).detach().cpu().double().numpy()
                for key in ('bboxes', 'scores')
            )
            rows = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores])
            bad = ~np.isfinite(rows).all(axis=1) | (rows[:, 2:4] < 0).any(axis=1)
            if bad.any():
                found = np.column_stack([boxes, scores])[bad.argmax()].tolist()
                raise InputError(
                    str(path),
                    f'a detection {found}',
                    'accepted: finite x1 <= x2, y1 <= y2 and score',
                )
            self.results.append((f'{path.parent.name}/{path.stem}', rows))

    def compute_metrics(self, results: list[tuple[str, np.ndarray]]) -> dict[str, float]:
        """Score the detections of all processes; {} with ``format_only``."""
        predictions: dict[str, np.ndarray] = {}
        for name, rows in results:
            # A distributed sampler may have shown an image twice, to give all processes as many.
            predictions.setdefault(name, rows)
        if self.outfile_prefix is not None:
            write_predictions(self.outfile_prefix, predictions)
        if self.format_only:
            print_log(f'Predictions are in {self.outfile_prefix}', logger='current')
            return {}
        scores = score_wider_face(predictions, self.ground_truth, self.iou_thr, self.subset)
        if scores.unmatched:
            print_log(
                f'{len(scores.unmatched)} images are not in the ground truth and do not count: '
                + ', '.join(scores.unmatched[:20]),
                logger='current',
            )
        if scores.missing and not self.subset:
            print_log(
                f'{scores.missing} images of the ground truth were not tested and count as '
                'images without detections',
                logger='current',
            )
        return scores.ap
