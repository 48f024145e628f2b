"""Multi-scale and flipped testing of face detectors, for mmdet's ``tools/test.py --tta``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData

from .box_voting import box_voting


@MODELS.register_module()
class FaceTTAModel(BaseTTAModel):
    """Merge the views of an image by box voting, landmarks included.

    Args:
        tta_cfg (dict): ``iou_thr`` (default 0.4) and ``max_per_img`` (default 750) of the vote.
        flip_indices (Sequence[int]): Order of the landmarks in a mirror, for views without
            ``flip_indices`` in their metainfo. Defaults to (1, 0, 2, 4, 3): eyes, nose, mouth
            corners.
        **kwargs: As for mmengine's BaseTTAModel: ``module``, the detector.
    """

    def __init__(
        self,
        tta_cfg: dict | None = None,
        flip_indices: Sequence[int] = (1, 0, 2, 4, 3),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.tta_cfg = tta_cfg or {}
        self.flip_indices = list(flip_indices)

    def merge_preds(self, data_samples_list: list[list[DetDataSample]]) -> list[DetDataSample]:
        """Merge the views of each image, in pixels of the original one, into its first view."""
        merged = []
        for views in data_samples_list:
            upright = [self._upright(view) for view in views]
            voted = box_voting(InstanceData.cat(upright), self.tta_cfg.get('iou_thr', 0.4))
            views[0].pred_instances = voted[: self.tta_cfg.get('max_per_img', 750)]
            merged.append(views[0])
        return merged

    def _upright(self, view: DetDataSample) -> InstanceData:
        """Return the detections of a view, flipped back."""
        pred = view.pred_instances
        if not view.metainfo.get('flip', False):
            return pred
        flip = partial(bbox_flip, img_shape=view.ori_shape[:2], direction=view.flip_direction)
        points = flip(pred.keypoints.repeat(1, 1, 2))[..., :2]
        if view.flip_direction != 'diagonal':  # A rotation: left stays left.
            points = points[:, list(view.metainfo.get('flip_indices', self.flip_indices))]
        return InstanceData(
            bboxes=flip(pred.bboxes), scores=pred.scores, labels=pred.labels, keypoints=points
        )
