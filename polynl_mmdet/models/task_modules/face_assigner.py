"""Assign anchors to faces."""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class FaceAssigner(BaseAssigner):
    """Assign anchors by IoU, with rules for small and for ignored faces (RetinaFace, Sec. 4.2).

    - An anchor is positive for the face it overlaps most, at IoU >= ``pos_iou_thr``.
    - Each face gets its best anchor, whatever the IoU. Of faces that share their best anchor, the
      one with the highest IoU gets it (the first of equals).
    - Other anchors are negative if their IoU with every face is below ``neg_iou_thr``, and neither
      in between.
    - Anchors of ignored faces are not negative: those with IoU >= ``neg_iou_thr`` to one, its
      best anchor, and those with more than ``ignore_iof_thr`` of their area inside one. They are
      positive only for a face that is not ignored.

    mmdet's MaxIoUAssigner differs: in an image whose faces are all ignored every anchor is
    negative, small ignored faces (covering little of any anchor) train as background, a face's best
    anchor may go to a later face of lower IoU, and a face that overlaps no anchor gets all of them
    at ``min_pos_iou=0``.

    Args:
        pos_iou_thr (float): Min IoU of a positive anchor. Defaults to 0.5.
        neg_iou_thr (float): Negative anchors have a lower IoU. Defaults to 0.3.
        ignore_iof_thr (float): An anchor with more than this fraction of its area inside an ignored
            face is not negative. Defaults to 0.5.
    """

    def __init__(
        self, pos_iou_thr: float = 0.5, neg_iou_thr: float = 0.3, ignore_iof_thr: float = 0.5
    ) -> None:
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.ignore_iof_thr = ignore_iof_thr

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        """Assign the anchors of one image.

        Returns:
            AssignResult: ``gt_inds`` (n,): 0 negative, -1 neither, i + 1 positive for face i;
            ``max_overlaps`` (n,) and ``labels`` (n,), -1 where not positive.
        """
        anchors = get_box_tensor(pred_instances.priors)
        faces = get_box_tensor(gt_instances.bboxes)
        gt_inds, max_overlaps = self._assign_faces(anchors, faces)
        if gt_instances_ignore is not None and len(gt_instances_ignore):
            ignored = get_box_tensor(gt_instances_ignore.bboxes).to(anchors)
            gt_inds[(gt_inds == 0) & self._belong_to(anchors, ignored)] = -1

        labels = gt_inds.new_full(gt_inds.shape, -1)
        positive = gt_inds > 0
        labels[positive] = gt_instances.labels[gt_inds[positive] - 1]
        return AssignResult(len(faces), gt_inds, max_overlaps, labels)

    def _assign_faces(self, anchors: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``gt_inds`` and ``max_overlaps`` for the faces that are not ignored."""
        gt_inds = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
        if not len(faces) or not len(anchors):
            return gt_inds, anchors.new_zeros(len(anchors))
        overlaps = bbox_overlaps(faces, anchors)
        max_overlaps, nearest = overlaps.max(dim=0)
        gt_inds[max_overlaps >= self.neg_iou_thr] = -1
        positive = max_overlaps >= self.pos_iou_thr
        gt_inds[positive] = nearest[positive] + 1

        best_overlap, best_anchor = overlaps.max(dim=1)
        claim = torch.zeros_like(max_overlaps)
        claim.scatter_reduce_(0, best_anchor, best_overlap, 'amax')
        wins = (best_overlap > 0) & (best_overlap == claim[best_anchor])
        owner = torch.full_like(gt_inds, len(faces))
        owner.scatter_reduce_(0, best_anchor[wins], wins.nonzero()[:, 0], 'amin')
        owned = owner < len(faces)
        gt_inds[owned] = owner[owned] + 1
        return gt_inds, max_overlaps

    def _belong_to(self, anchors: Tensor, ignored: Tensor) -> Tensor:
        """Return bool (n,): anchors that are not negative because of ignored faces."""
        overlaps = bbox_overlaps(ignored, anchors)
        inside = bbox_overlaps(anchors, ignored, mode='iof').amax(dim=1)
        belong = (overlaps.amax(dim=0) >= self.neg_iou_thr) | (inside > self.ignore_iof_thr)
        best_overlap, best_anchor = overlaps.max(dim=1)
        belong[best_anchor[best_overlap > 0]] = True
        return belong
