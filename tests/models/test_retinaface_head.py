"""RetinaFaceHead: its loss and its detections against loops, and the edge cases of both."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from polynl_mmdet.models.dense_heads.retinaface_head import hard_negatives

ANCHORS = dict(
    type='AnchorGenerator',
    strides=[8, 16],
    base_sizes=[16, 40],
    scales=[1.0, 2.0],
    ratios=[1.0],
    centers=[(4, 4), (8, 8)],
)
CODER = dict(
    type='DeltaXYWHBBoxCoder',
    target_means=[0.0] * 4,
    target_stds=[0.1, 0.1, 0.2, 0.2],
    clip_border=False,
)
TEST_CFG = dict(
    score_thr=0.3, nms_pre=5000, nms=dict(type='nms', iou_threshold=0.4, offset=1), max_per_img=750
)
SIZES = [(8, 10), (4, 5)]  # of an image of 64 x 80
META = dict(img_shape=(64, 80), pad_shape=(64, 80), ori_shape=(64, 80), scale_factor=(1.0, 1.0))
TWO = [[4.0, 6.0, 22.0, 24.0], [30.0, 10.0, 68.0, 55.0]]
SMALL = [[50.0, 40.0, 55.0, 46.0]]


def make_head(sigmoid=False, neg_pos_ratio=3, **kwargs):
    register_all_modules()
    cfg = dict(
        type='RetinaFaceHead',
        in_channels=8,
        anchor_generator=ANCHORS,
        bbox_coder=CODER,
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=sigmoid, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=0.25),
        loss_landmark=dict(type='SmoothL1Loss', beta=1.0, loss_weight=0.1),
        train_cfg=dict(assigner=dict(type='FaceAssigner'), neg_pos_ratio=neg_pos_ratio),
        test_cfg=ConfigDict(TEST_CFG),
    )
    torch.manual_seed(0)
    head = MODELS.build({**cfg, **kwargs})
    head.init_weights()
    return head


def make_outputs(head, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return head(tuple(torch.randn(batch, 8, *size, generator=generator) * 20 for size in SIZES))


def make_faces(boxes, points=None, visible=None):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    return InstanceData(
        bboxes=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.long),
        keypoints=torch.rand(len(boxes), 5, 2) * 60 if points is None else points,
        keypoints_visible=torch.ones(len(boxes), 5) if visible is None else visible,
    )


def loss_oracle(head, outputs, batch_faces, batch_ignored, sigmoid):
    """The three losses, one anchor at a time."""
    anchors = torch.cat(head.prior_generator.grid_priors(SIZES, device='cpu'))
    num_scores = 1 if sigmoid else 2
    total_pos = total_points = 0
    cls = box = landmark = 0.0
    for index, (faces, ignored) in enumerate(zip(batch_faces, batch_ignored)):
        scores, deltas, codes = (
            torch.cat([x[index].permute(1, 2, 0).reshape(-1, n) for x in maps])
            for maps, n in zip(outputs, (num_scores, 4, 10))
        )
        gt_inds = head.assigner.assign(InstanceData(priors=anchors), faces, ignored).gt_inds
        positives, negatives = [], []
        for i, gt in enumerate(gt_inds.tolist()):
            p = torch.sigmoid(scores[i, 0]) if sigmoid else torch.softmax(scores[i], 0)[0]
            if gt == 0:
                negatives.append(-torch.log(1 - p))
            elif gt > 0:
                positives.append(-torch.log(p))
                anchor, face = anchors[i], faces.bboxes[gt - 1]
                size = anchor[2:] - anchor[:2]
                centre = (anchor[2:] + anchor[:2]) / 2
                shift = ((face[2:] + face[:2]) / 2 - centre) / size / 0.1
                target = torch.cat([shift, torch.log((face[2:] - face[:2]) / size) / 0.2])
                box += F.smooth_l1_loss(deltas[i], target, reduction='sum')
                for k in range(5):
                    if faces.keypoints_visible[gt - 1, k] > 0:
                        total_points += 1
                        target = (faces.keypoints[gt - 1, k] - centre) / size / 0.1
                        code = codes[i, 2 * k : 2 * k + 2]
                        landmark += F.smooth_l1_loss(code, target, reduction='sum')
        hardest = sorted(negatives, reverse=True)[: 3 * max(len(positives), 1)]
        cls += sum(positives) + sum(hardest)
        total_pos += max(len(positives), 1)
    return cls / total_pos, 0.25 * box / total_pos, 0.1 * landmark / max(total_points / 5, 1)


@pytest.mark.parametrize(('sigmoid', 'seed'), [(False, 0), (False, 1), (True, 2)])
def test_loss_agrees_with_loops(sigmoid, seed):
    head = make_head(sigmoid)
    outputs = make_outputs(head, 3, seed)
    visible = torch.tensor([[1.0] * 5, [1.0, 0.0, 0.0, 1.0, 0.0]])
    faces = [make_faces(TWO, visible=visible), make_faces([]), make_faces(SMALL)]
    ignored = [None, make_faces(TWO), make_faces([])]
    losses = head.loss_by_feat(*outputs, faces, [META] * 3, ignored)
    expected = loss_oracle(head, outputs, faces, ignored, sigmoid)
    found = [losses[key] for key in ('loss_cls', 'loss_bbox', 'loss_landmark')]
    torch.testing.assert_close(found, list(expected), rtol=1e-4, atol=0)


@pytest.mark.parametrize('ratio', [1, 2.5, -1])
def test_hard_negatives(ratio):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        kind = torch.randint(0, 8, (1 + 3 * seed,), generator=generator)
        losses = torch.rand(len(kind), generator=generator, requires_grad=True)
        positive, negative = kind == 0, kind > 1
        ordered = sorted(negative.nonzero()[:, 0].tolist(), key=lambda i: -losses[i])
        count = int(ratio * max(positive.sum(), 1)) if ratio > 0 else len(losses)
        found = hard_negatives(losses, positive, negative, ratio)
        assert found.nonzero()[:, 0].tolist() == sorted(ordered[:count])


@pytest.mark.parametrize('share', [True, False])
def test_no_face_images_train(share):
    head = make_head(share_levels=share)
    outputs = make_outputs(head, 2)
    losses = head.loss_by_feat(*outputs, [make_faces([])] * 2, [META] * 2, None)
    assert losses['loss_cls'] > 0
    assert losses['loss_bbox'] == losses['loss_landmark'] == 0
    sum(losses.values()).backward()
    for name, param in head.named_parameters():
        assert param.grad is not None, name  # or distributed training would wait for it
        assert param.grad.isfinite().all()
        assert name.startswith('conv_cls') or param.grad.abs().sum() == 0
    assert any(param.grad.abs().sum() > 0 for param in head.conv_cls.parameters())


@pytest.mark.parametrize('points', [1, 68])
def test_box_loss_on_decoded_boxes_and_any_number_of_landmarks(points):
    head = make_head(
        reg_decoded_bbox=True,
        loss_bbox=dict(type='GIoULoss', loss_weight=0.25),
        landmark_coder=dict(type='LandmarkCoder', num_points=points),
    )
    faces = make_faces(TWO, torch.rand(2, points, 2) * 30, torch.ones(2, points))
    outputs = make_outputs(head, 1)
    losses = head.loss_by_feat(*outputs, [faces], [META], None)
    assert all(loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(param.grad.isfinite().all() for param in head.parameters())
    (found,) = head.predict_by_feat(*outputs, [META])
    assert found.keypoints.shape == (len(found), points, 2)
    # Boxes of no delta are the anchors.
    anchors = torch.cat(head.prior_generator.grid_priors(SIZES, device='cpu'))
    assigned = head.assigner.assign(InstanceData(priors=anchors), faces, None)
    overlaps = bbox_overlaps(anchors, faces.bboxes, mode='giou')
    chosen = [overlaps[i, gt - 1] for i, gt in enumerate(assigned.gt_inds) if gt > 0]
    zeros = [torch.zeros_like(x) for x in outputs[1]]
    losses = head.loss_by_feat(outputs[0], zeros, outputs[2], [faces], [META], None)
    expected = 0.25 * (1 - torch.stack(chosen)).mean()
    torch.testing.assert_close(losses['loss_bbox'], expected)


def test_padding_does_not_train():
    """Anchors past an image's padded shape are in no loss."""
    head = make_head(neg_pos_ratio=-1)
    outputs = [[x.detach().requires_grad_() for x in maps] for maps in make_outputs(head, 1)]
    meta = dict(META, img_shape=(64, 32), pad_shape=(64, 32))
    losses = head.loss_by_feat(*outputs, [make_faces(TWO)], [meta], None)
    losses['loss_cls'].backward()
    assert (outputs[0][0].grad[..., 4:] == 0).all()
    assert (outputs[0][0].grad[..., :4] != 0).any()


def test_errors():
    head = make_head()
    faces = make_faces(TWO, torch.rand(2, 4, 2), torch.ones(2, 4))
    with pytest.raises(ValueError, match='num_points: got 5, expected 4'):
        head.loss_by_feat(*make_outputs(head, 1), [faces], [META], None)
    del faces.keypoints
    with pytest.raises(ValueError, match='keypoints'):
        head.loss_by_feat(*make_outputs(head, 1), [faces], [META], None)
    with pytest.raises(ValueError, match='expected 2, one per anchor stride'):
        head((torch.zeros(1, 8, 4, 4),))


def predict_oracle(head, outputs, index, cfg):
    """Decode every anchor, then greedy suppression with the +1 convention."""
    found = []
    for level, (rows, columns) in enumerate(SIZES):
        stride, sides = ((8, (16, 32)), (16, (40, 80)))[level]
        scores, deltas, codes = (maps[level][index].detach() for maps in outputs)
        for row in range(rows):
            for column in range(columns):
                for a, side in enumerate(sides):
                    pair = scores[2 * a : 2 * a + 2, row, column]
                    score = torch.softmax(pair, 0)[0].item()
                    if score <= cfg['score_thr']:
                        continue
                    cx, cy = (column + 0.5) * stride, (row + 0.5) * stride
                    d = deltas[4 * a : 4 * a + 4, row, column].tolist()
                    x, y = cx + 0.1 * d[0] * side, cy + 0.1 * d[1] * side
                    w, h = side * math.exp(0.2 * d[2]), side * math.exp(0.2 * d[3])
                    c = codes[10 * a : 10 * a + 10, row, column].tolist()
                    marks = [
                        (cx + 0.1 * side * c[2 * k], cy + 0.1 * side * c[2 * k + 1])
                        for k in range(5)
                    ]
                    found.append((score, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), marks))
    kept = []
    for item in sorted(found, key=lambda item: -item[0])[: cfg['nms_pre']]:
        if all(iou_with_pixels(item[1], other[1]) <= 0.4 for other in kept):
            kept.append(item)
    return kept[: cfg['max_per_img']]


def iou_with_pixels(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    sizes = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return width * height / (sum(sizes) - width * height)


@pytest.mark.parametrize(
    ('seed', 'limits'), [(0, {}), (1, {}), (2, dict(nms_pre=20)), (3, dict(max_per_img=5))]
)
def test_detections_agree_with_loops(seed, limits):
    head = make_head()
    outputs = make_outputs(head, 2, seed)
    cfg = ConfigDict({**TEST_CFG, **limits})
    results = head.predict_by_feat(*outputs, batch_img_metas=[META] * 2, cfg=cfg)
    for index, result in enumerate(results):
        expected = predict_oracle(head, outputs, index, cfg)
        assert len(result) == len(expected) > 0
        scores, boxes, points = zip(*expected)
        torch.testing.assert_close(result.scores, torch.tensor(scores), atol=1e-5, rtol=0)
        torch.testing.assert_close(result.bboxes, torch.tensor(boxes), atol=1e-3, rtol=0)
        torch.testing.assert_close(result.keypoints, torch.tensor(points), atol=1e-3, rtol=0)
        assert (result.labels == 0).all()


def test_results_are_rescaled_and_nothing_is_found_in_padding():
    head = make_head()
    outputs = make_outputs(head, 1)

    def predict(meta, maps=outputs, **kwargs):
        return head.predict_by_feat(*maps, batch_img_metas=[meta], **kwargs)[0]

    plain = predict(META)
    small = predict(META, with_nms=False)
    assert len(plain) < len(small)
    # Without suppression, which sees other overlaps at another aspect ratio.
    large = predict(dict(META, scale_factor=(0.5, 0.25)), rescale=True, with_nms=False)
    torch.testing.assert_close(large.bboxes, small.bboxes * torch.tensor([2.0, 4.0, 2.0, 4.0]))
    torch.testing.assert_close(large.keypoints, small.keypoints * torch.tensor([2.0, 4.0]))
    unscaled = {key: value for key, value in META.items() if key != 'scale_factor'}
    assert torch.equal(predict(unscaled, rescale=True).bboxes, plain.bboxes)

    meta = dict(META, img_shape=(64, 33))  # 5 columns of stride 8, 3 of stride 16
    result = predict(meta, with_nms=False)
    cut = [[x[..., :columns] for x, columns in zip(maps, (5, 3))] for maps in outputs]
    expected = predict(meta, cut, with_nms=False)
    assert 0 < len(result) < len(small)
    torch.testing.assert_close(result.bboxes, expected.bboxes)
