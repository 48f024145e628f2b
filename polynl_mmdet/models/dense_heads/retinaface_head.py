"""RetinaFace's head: class scores, box and landmarks of every anchor.

RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild (Deng et al., CVPR 2020),
https://arxiv.org/abs/1905.00641.
"""

from __future__ import annotations

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import AnchorHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import get_box_tensor, scale_boxes
from mmdet.utils import reduce_mean
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn


@MODELS.register_module()
class RetinaFaceHead(AnchorHead):
    """1x1 convolutions that predict class scores, box deltas and landmarks of each anchor.

    The multi-task loss is the paper's (Sec. 3.1, without the dense branch): classification over
    the positives and the hardest negatives of each image, boxes over the positives, landmarks
    over the positives whose face has annotated ones. Classification and box loss are divided by
    the number of positives in the batch (at least one per image), the landmark loss by the number
    of positives with landmarks; a face with some of its landmarks counts as that fraction.

    Args:
        num_classes (int): Classes without the background. Defaults to 1.
        in_channels (int): Channels of each input map. Defaults to 256.
        share_levels (bool): Whether all levels use the same convolutions. Defaults to True.
        landmark_coder (dict): ``num_points`` is the number K of landmarks per object. Defaults to
            five with std 0.1.
        loss_landmark (dict): Defaults to smooth L1 of weight 0.1.
        anchor_generator, bbox_coder, reg_decoded_bbox, loss_cls, loss_bbox, init_cfg: As for
            mmdet's AnchorHead; softmax or sigmoid classification, smooth L1 on deltas or, with
            ``reg_decoded_bbox``, an IoU-type loss on boxes.
        train_cfg (dict, optional): ``assigner`` (dict) and ``neg_pos_ratio`` (float, default 3;
            negative: no mining).
        test_cfg (dict, optional): ``score_thr``, ``nms_pre`` (max boxes before the NMS, over
            all levels), ``nms`` (as for mmcv's batched_nms) and ``max_per_img``.
    """

    def __init__(
        self,
        num_classes: int = 1,
        in_channels: int = 256,
        share_levels: bool = True,
        landmark_coder: dict | None = None,
        loss_landmark: dict | None = None,
        **kwargs,
    ) -> None:
        self.share_levels = share_levels
        self.landmark_coder = TASK_UTILS.build(landmark_coder or dict(type='LandmarkCoder'))
        super().__init__(num_classes, in_channels, **kwargs)
        default = dict(type='SmoothL1Loss', beta=1.0, loss_weight=0.1)
        self.loss_landmark = MODELS.build(loss_landmark or default)

    def _init_layers(self) -> None:
        num_levels = self.prior_generator.num_levels
        for branch, size in zip(('cls', 'reg', 'landmark'), self._sizes()):
            convs = nn.ModuleList(
                nn.Conv2d(self.in_channels, self.num_base_priors * size, 1)
                for _ in range(1 if self.share_levels else num_levels)
            )
            self.add_module(f'conv_{branch}', convs)

    def _sizes(self) -> tuple[int, int, int]:
        """Return how many scores, deltas and codes an anchor has."""
        codes = self.bbox_coder.encode_size, self.landmark_coder.encode_size
        return (self.cls_out_channels, *codes)

    def forward(self, x: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Compute the raw outputs of every level, of maps (B, in_channels, H_i, W_i).

        Returns:
            tuple[list[Tensor]]: Maps of A anchors times 1 (sigmoid) or 2 (softmax, background
            last) class scores, A times 4 box deltas, A times 2 K landmark codes.
        """
        if len(x) != self.prior_generator.num_levels:
            raise ValueError(
                f'bbox_head: got {len(x)} maps, expected {self.prior_generator.num_levels}, '
                'one per anchor stride'
            )
        return tuple(
            [convs[0 if self.share_levels else level](feat) for level, feat in enumerate(x)]
            for convs in (self.conv_cls, self.conv_reg, self.conv_landmark)
        )

    def per_anchor(self, *outputs: list[Tensor]) -> list[Tensor]:
        """Reshape a branch's maps (B, A * size, H_i, W_i) each to one (B, anchors, size)."""
        flat = []
        for maps, size in zip(outputs, self._sizes()):
            maps = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size) for x in maps]
            flat.append(torch.cat(maps, dim=1).float())
        return flat

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        landmark_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Compute ``loss_cls``, ``loss_bbox`` and ``loss_landmark`` of a batch.

        Args:
            cls_scores, bbox_preds, landmark_preds (list[Tensor]): Outputs of :meth:`forward`.
            batch_gt_instances (list[InstanceData]): ``bboxes`` (k, 4), ``labels`` (k,),
                ``keypoints`` (k, K, 2) and ``keypoints_visible`` (k, K), pixels of the input.
            batch_img_metas (list[dict]): With ``pad_shape``.
            batch_gt_instances_ignore (list[InstanceData | None], optional): ``bboxes`` of faces
                that are neither positive nor negative.
        """
        sizes = [scores.shape[-2:] for scores in cls_scores]
        anchor_list, flag_list = self.get_anchors(sizes, batch_img_metas, cls_scores[0].device)
        anchors = torch.cat(anchor_list[0])
        flat = self.per_anchor(cls_scores, bbox_preds, landmark_preds)
        ignored = batch_gt_instances_ignore or [None] * len(batch_img_metas)
        parts = [
            self._loss_terms(anchors, torch.cat(flags), outputs, gt, gt_ignore)
            for flags, *outputs, gt, gt_ignore in zip(flag_list, *flat, batch_gt_instances, ignored)
        ]
        cls_loss, num_pos, bbox_args, landmark_args = zip(*parts)

        points = sum(len(target) for _, target in landmark_args) / self.landmark_coder.num_points
        averages = anchors.new_tensor([float(sum(num_pos)), points])
        pos_average, point_average = reduce_mean(averages).clamp(min=1).tolist()
        return dict(
            loss_cls=torch.stack(cls_loss).sum() / pos_average,
            loss_bbox=_loss(self.loss_bbox, bbox_args, pos_average),
            loss_landmark=_loss(self.loss_landmark, landmark_args, point_average),
        )

    def _loss_terms(
        self,
        anchors: Tensor,
        valid: Tensor,
        outputs: list[Tensor],
        gt: InstanceData,
        gt_ignore: InstanceData | None,
    ) -> tuple[Tensor, int, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return of one image the summed classification loss, the number of positives (at least 1),
        and predictions and targets of boxes, (P, 4), and of the annotated points, (Q, 2)."""
        if 'keypoints' not in gt:
            raise ValueError('gt_instances: got no keypoints, expected those of RetinaFaceDataset')
        if gt.keypoints.shape[1] != self.landmark_coder.num_points:
            raise ValueError(
                f'bbox_head.landmark_coder.num_points: got {self.landmark_coder.num_points}, '
                f'expected {gt.keypoints.shape[1]}, the landmarks of the data set'
            )
        cls_score, bbox_pred, landmark_pred = outputs
        assigned = self.assigner.assign(InstanceData(priors=anchors), gt, gt_ignore)
        positive = (assigned.gt_inds > 0) & valid
        negative = (assigned.gt_inds == 0) & valid
        labels = torch.full_like(assigned.gt_inds, self.num_classes)
        labels[positive] = assigned.labels[positive]
        losses = self.loss_cls(cls_score, labels, reduction_override='none')
        losses = losses.reshape(len(anchors), -1).sum(dim=1)
        ratio = (self.train_cfg or {}).get('neg_pos_ratio', 3.0)
        negative = hard_negatives(losses, positive, negative, ratio)
        cls_loss = losses[positive | negative].sum()

        which = assigned.gt_inds[positive] - 1
        pos_anchors = anchors[positive]
        boxes = get_box_tensor(gt.bboxes)[which]
        if self.reg_decoded_bbox:
            bbox_args = (self.bbox_coder.decode(pos_anchors, bbox_pred[positive]), boxes)
        else:
            bbox_args = (bbox_pred[positive], self.bbox_coder.encode(pos_anchors, boxes))

        annotated = gt.keypoints_visible[which] > 0
        codes = self.landmark_coder.encode(pos_anchors, gt.keypoints[which])
        landmark_pred = landmark_pred[positive].reshape(codes.shape)
        landmark_args = (landmark_pred[annotated], codes[annotated])
        return cls_loss, max(len(which), 1), bbox_args, landmark_args

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        landmark_preds: list[Tensor],
        batch_img_metas: list[dict],
        cfg: ConfigDict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Compute the detections of a batch.

        Args:
            cls_scores, bbox_preds, landmark_preds (list[Tensor]): Outputs of :meth:`forward`.
            batch_img_metas (list[dict]): With ``img_shape``, and ``scale_factor`` (x, y)
                where the image was resized.
            cfg, rescale, with_nms: As for mmdet's AnchorHead.

        Returns:
            list[InstanceData]: Per image ``bboxes`` (n, 4), ``scores`` (n,), ``labels`` (n,) and
            ``keypoints`` (n, K, 2), by decreasing score.
        """
        cfg = self.test_cfg if cfg is None else cfg
        sizes = [scores.shape[-2:] for scores in cls_scores]
        device = cls_scores[0].device
        anchors = torch.cat(self.prior_generator.grid_priors(sizes, device=device))
        flat = self.per_anchor(cls_scores, bbox_preds, landmark_preds)
        scores, deltas, codes = (output.detach() for output in flat)
        scores = scores.sigmoid() if self.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
        results = []
        for index, meta in enumerate(batch_img_metas):
            # Images of a batch may be padded to one size: skip the anchors in the padding.
            inside = torch.cat(self.prior_generator.valid_flags(sizes, meta['img_shape'], device))
            valid = (scores[index] > cfg.get('score_thr', 0.0)) & inside[:, None]
            anchor_ids, labels = valid.nonzero(as_tuple=True)
            kept = scores[index][anchor_ids, labels]
            if 0 < cfg.get('nms_pre', -1) < len(kept):
                kept, order = kept.topk(cfg.nms_pre)
                anchor_ids, labels = anchor_ids[order], labels[order]
            selected = anchors[anchor_ids]
            boxes = self.bbox_coder.decode(selected, deltas[index][anchor_ids], meta['img_shape'])
            points = self.landmark_coder.decode(selected, codes[index][anchor_ids])
            result = InstanceData(bboxes=boxes, scores=kept, labels=labels, keypoints=points)
            results.append(self._finish(result, meta, cfg, rescale, with_nms))
        return results

    def _finish(
        self, result: InstanceData, meta: dict, cfg: ConfigDict, rescale: bool, with_nms: bool
    ) -> InstanceData:
        """Rescale one image's detections to its original pixels and apply the NMS."""
        if rescale and 'scale_factor' in meta:
            factor = [1 / scale for scale in meta['scale_factor']]
            result.bboxes = scale_boxes(result.bboxes, factor)
            result.keypoints = result.keypoints * result.keypoints.new_tensor(factor)
        if with_nms and len(result):
            _, keep = batched_nms(result.bboxes, result.scores, result.labels, cfg.nms)
            result = result[keep]
        else:
            result = result[result.scores.argsort(descending=True)]
        if cfg.get('max_per_img', -1) > 0:
            result = result[: cfg.max_per_img]
        return result


def hard_negatives(losses: Tensor, positive: Tensor, negative: Tensor, ratio: float) -> Tensor:
    """Select the negatives of one image with the highest losses (SSD, Sec. 2.2).

    An image without positives keeps as many negatives as one with a single positive, so that images
    without faces count too, and no more than one face.

    Args:
        losses (Tensor): Classification loss of each anchor, (n,).
        positive, negative (Tensor): Bool (n,); anchors in neither are skipped.
        ratio (float): Negatives per positive. Negative: keep all.
    """
    if ratio < 0:
        return negative.clone()
    max_count = int(ratio * max(int(positive.sum()), 1))
    candidates = negative.nonzero()[:, 0]
    hardest = losses.detach()[candidates].topk(min(max_count, len(candidates))).indices
    selected = torch.zeros_like(negative)
    selected[candidates[hardest]] = True
    return selected


def _loss(loss: nn.Module, pairs: tuple[tuple[Tensor, Tensor], ...], average: float) -> Tensor:
    """Return the loss of all images' (predictions, targets); a differentiable zero without any."""
    predictions, targets = (torch.cat(side) for side in zip(*pairs))
    if not len(targets):
        return predictions.sum()
    return loss(predictions, targets, avg_factor=average)
