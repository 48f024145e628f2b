"""Multi-scale and flipped testing of face detectors, for mmdet's ``tools/test.py --tta``."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor

from .box_voting import box_voting


@MODELS.register_module()
class FaceTTAModel(BaseTTAModel):
    """Merges the views of an image by box voting, landmarks included.

    Args:
        tta_cfg (dict): ``iou_thr`` (default 0.4) and ``max_per_img`` (default 750) of the vote.
        swap (Sequence[int]): Which landmark each landmark is in a mirror. Defaults to left and
            right exchanged among eyes, nose and mouth corners: (1, 0, 2, 4, 3).
        **kwargs: As for mmengine's BaseTTAModel: ``module``, the detector.
    """

    def __init__(
        self,
        tta_cfg: dict | None = None,
        swap: Sequence[int] = (1, 0, 2, 4, 3),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.tta_cfg = tta_cfg or {}
        self.swap = list(swap)

    def merge_preds(self, data_samples_list: list[list[DetDataSample]]) -> list[DetDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list (list[list[DetDataSample]]): For each image its views, whose
                ``pred_instances`` are in pixels of the original, flipped or not.

        Returns:
            list[DetDataSample]: The first view's samples, with the merged ``pred_instances``.
        """
        merged = []
        for views in data_samples_list:
            upright = [self._upright(view) for view in views]
            voted = box_voting(InstanceData.cat(upright), self.tta_cfg.get('iou_thr', 0.4))
            views[0].pred_instances = voted[: self.tta_cfg.get('max_per_img', 750)]
            merged.append(views[0])
        return merged

    def _upright(self, view: DetDataSample) -> InstanceData:
        """A view's detections as they are in the image that was not flipped."""
        found = view.pred_instances
        if not view.metainfo.get('flip', False):
            return found
        direction, shape = view.flip_direction, view.ori_shape[:2]
        return InstanceData(
            bboxes=bbox_flip(found.bboxes, shape, direction),
            scores=found.scores,
            labels=found.labels,
            keypoints=self._flip_points(found.keypoints, shape, direction),
        )

    def _flip_points(self, points: Tensor, shape: Sequence[int], direction: str) -> Tensor:
        height, width = shape
        points = points.clone()
        if direction in ('horizontal', 'diagonal'):
            points[..., 0] = width - points[..., 0]
        if direction in ('vertical', 'diagonal'):
            points[..., 1] = height - points[..., 1]
        # Two mirrors are a turn, after which a left eye is a left eye again.
        return points if direction == 'diagonal' else points[:, self.swap]
