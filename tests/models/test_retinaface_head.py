"""RetinaFaceHead: its loss and its detections against loops, and the edge cases of both."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

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


def make_outputs(head, batch, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    feats = tuple(
        torch.randn(batch, 8, *size, generator=generator).mul_(scale * 20) for size in SIZES
    )
    return head(feats)


def make_faces(boxes, points=None, visible=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if points is None:
        generator = torch.Generator().manual_seed(9)
        points = boxes[:, None, :2] + torch.rand(len(boxes), 5, 2, generator=generator) * 20
    if visible is None:
        visible = torch.ones(len(boxes), 5)
    return InstanceData(
        bboxes=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.long),
        keypoints=points,
        keypoints_visible=visible,
    )


TWO = [[4.0, 6.0, 22.0, 24.0], [30.0, 10.0, 68.0, 55.0]]
SMALL = [[50.0, 40.0, 55.0, 46.0]]


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
            is_face = float(gt > 0)
            p = torch.sigmoid(scores[i, 0]) if sigmoid else torch.softmax(scores[i], 0)[0]
            entropy = -(is_face * torch.log(p) + (1 - is_face) * torch.log(1 - p))
            if gt == 0:
                negatives.append(entropy)
            elif gt > 0:
                positives.append(entropy)
                anchor, face = anchors[i], faces.bboxes[gt - 1]
                size = anchor[2:] - anchor[:2]
                centre = (anchor[2:] + anchor[:2]) / 2
                target = torch.cat(
                    [
                        ((face[2:] + face[:2]) / 2 - centre) / size / 0.1,
                        torch.log((face[2:] - face[:2]) / size) / 0.2,
                    ]
                )
                box += F.smooth_l1_loss(deltas[i], target, reduction='sum')
                for k in range(5):
                    if faces.keypoints_visible[gt - 1, k] > 0:
                        total_points += 1
                        target = (faces.keypoints[gt - 1, k] - centre) / size / 0.1
                        landmark += F.smooth_l1_loss(
                            codes[i, 2 * k : 2 * k + 2], target, reduction='sum'
                        )
        hardest = sorted(negatives, reverse=True)[: 3 * max(len(positives), 1)]
        cls += sum(positives) + sum(hardest)
        total_pos += max(len(positives), 1)
    return (
        cls / total_pos,
        0.25 * box / total_pos,
        0.1 * landmark / max(total_points / 5, 1),
    )


@pytest.mark.parametrize('sigmoid', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_loss_agrees_with_loops(sigmoid, seed):
    head = make_head(sigmoid)
    outputs = make_outputs(head, 3, seed)
    visible = torch.tensor([[1.0] * 5, [1.0, 0.0, 0.0, 1.0, 0.0]])
    points = torch.rand(2, 5, 2) * 60
    points[1, 1] = -1.0
    faces = [make_faces(TWO, points, visible), make_faces([]), make_faces(SMALL)]
    ignored = [None, make_faces(TWO), make_faces([])]
    losses = head.loss_by_feat(*outputs, faces, [META] * 3, ignored)
    expected = loss_oracle(head, outputs, faces, ignored, sigmoid)
    for key, value in zip(('loss_cls', 'loss_bbox', 'loss_landmark'), expected):
        assert losses[key].item() == pytest.approx(float(value), rel=1e-4), key


@pytest.mark.parametrize('share', [True, False])
def test_no_face_images_train(share):
    head = make_head(share_levels=share)
    outputs = make_outputs(head, 2)
    losses = head.loss_by_feat(*outputs, [make_faces([])] * 2, [META] * 2, None)
    assert losses['loss_cls'] > 0
    assert losses['loss_bbox'] == 0
    assert losses['loss_landmark'] == 0
    sum(losses.values()).backward()
    for name, param in head.named_parameters():
        assert param.grad is not None, name  # or distributed training would wait for it
        assert param.grad.isfinite().all()
        assert name.startswith('conv_cls') or param.grad.abs().sum() == 0
    assert any(param.grad.abs().sum() > 0 for param in head.conv_cls.parameters())


def test_ignored_faces_change_nothing():
    """Outputs of an ignored face's anchors get no gradient, whatever they say."""
    head = make_head(neg_pos_ratio=-1)
    outputs = [[x.detach().requires_grad_() for x in maps] for maps in make_outputs(head, 1)]
    losses = head.loss_by_feat(*outputs, [make_faces([])], [META], [make_faces(TWO)])
    losses['loss_cls'].backward()
    grads = torch.cat([x.grad[0].permute(1, 2, 0).reshape(-1, 2).abs().sum(1) for x in outputs[0]])
    anchors = torch.cat(head.prior_generator.grid_priors(SIZES, device='cpu'))
    neither = head.assigner.assign(
        InstanceData(priors=anchors), make_faces([]), make_faces(TWO)
    ).gt_inds
    assert (neither == -1).sum() > 4
    assert ((grads == 0) == (neither == -1)).all()


@pytest.mark.parametrize('loss', ['IoULoss', 'GIoULoss', 'DIoULoss'])
def test_box_loss_on_decoded_boxes(loss):
    head = make_head(reg_decoded_bbox=True, loss_bbox=dict(type=loss, loss_weight=0.25))
    outputs = make_outputs(head, 2)
    faces = [make_faces(TWO), make_faces([])]
    losses = head.loss_by_feat(*outputs, faces, [META] * 2, None)
    assert losses['loss_bbox'] > 0
    sum(losses.values()).backward()
    assert all(param.grad.isfinite().all() for param in head.parameters())
    # Outputs that say the faces themselves have no loss.
    anchors = torch.cat(head.prior_generator.grid_priors(SIZES, device='cpu'))
    gt_inds = head.assigner.assign(InstanceData(priors=anchors), faces[0], None).gt_inds
    codes = torch.zeros(len(anchors), 4)
    which = gt_inds > 0
    codes[which] = head.bbox_coder.encode(anchors[which], faces[0].bboxes[gt_inds[which] - 1])
    exact = []
    for (rows, columns), level in zip(SIZES, codes.split([2 * r * c for r, c in SIZES])):
        exact.append(level.reshape(1, rows, columns, 8).permute(0, 3, 1, 2))
    single = [[x[:1] for x in maps] for maps in outputs]
    losses = head.loss_by_feat(single[0], exact, single[2], [faces[0]], [META], None)
    assert losses['loss_bbox'] < 1e-3


def test_padding_does_not_train():
    """Anchors past an image's padded shape are in no loss."""
    head = make_head(neg_pos_ratio=-1)
    outputs = [[x.detach().requires_grad_() for x in maps] for maps in make_outputs(head, 1)]
    meta = dict(META, img_shape=(64, 32), pad_shape=(64, 32))
    losses = head.loss_by_feat(*outputs, [make_faces(TWO[:1])], [meta], None)
    losses['loss_cls'].backward()
    assert (outputs[0][0].grad[..., 4:] == 0).all()
    assert (outputs[0][0].grad[..., :4] != 0).any()


def test_faces_without_keypoints_are_refused():
    head = make_head()
    faces = make_faces(TWO)
    del faces.keypoints
    with pytest.raises(ValueError, match='keypoints'):
        head.loss_by_feat(*make_outputs(head, 1), [faces], [META], None)


def test_wrong_number_of_maps_is_refused():
    with pytest.raises(ValueError, match='expected 2, one per anchor stride'):
        make_head()((torch.zeros(1, 8, 4, 4),))


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
                    box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                    found.append((score, box, marks))
    found.sort(key=lambda item: -item[0])
    found = found[: cfg['nms_pre']]
    kept = []
    for item in found:
        if all(iou_with_pixels(item[1], other[1]) <= 0.4 for other in kept):
            kept.append(item)
    return kept[: cfg['max_per_img']]


def iou_with_pixels(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    sizes = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return width * height / (sum(sizes) - width * height)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('limits', [{}, dict(nms_pre=20), dict(max_per_img=5)])
def test_detections_agree_with_loops(seed, limits):
    head = make_head()
    outputs = make_outputs(head, 2, seed)
    cfg = ConfigDict({**TEST_CFG, **limits})
    results = head.predict_by_feat(*outputs, batch_img_metas=[META] * 2, cfg=cfg)
    for index, result in enumerate(results):
        expected = predict_oracle(head, outputs, index, cfg)
        assert len(result) == len(expected) > 0
        scores, boxes, points = zip(*expected)
        assert torch.allclose(result.scores, torch.tensor(scores), atol=1e-5)
        assert torch.allclose(result.bboxes, torch.tensor(boxes), atol=1e-3)
        assert torch.allclose(result.keypoints, torch.tensor(points), atol=1e-3)
        assert result.keypoints.shape == (len(result), 5, 2)
        assert (result.labels == 0).all()


def test_rescaled_to_the_original():
    head = make_head()
    outputs = make_outputs(head, 1)
    plain = head.predict_by_feat(*outputs, batch_img_metas=[META])[0]
    half = dict(META, scale_factor=(0.5, 0.25))
    # Without suppression, which sees other overlaps at another aspect ratio.
    small = head.predict_by_feat(*outputs, batch_img_metas=[META], with_nms=False)[0]
    large = head.predict_by_feat(*outputs, batch_img_metas=[half], rescale=True, with_nms=False)[0]
    assert len(plain) < len(small)
    assert torch.allclose(large.bboxes, small.bboxes * torch.tensor([2.0, 4.0, 2.0, 4.0]))
    assert torch.allclose(large.keypoints, small.keypoints * torch.tensor([2.0, 4.0]))
    unscaled = {key: value for key, value in META.items() if key != 'scale_factor'}
    same = head.predict_by_feat(*outputs, batch_img_metas=[unscaled], rescale=True)[0]
    assert torch.equal(same.bboxes, plain.bboxes)


def test_nothing_is_found_in_padding():
    """A smaller image of a batch gives what its part of the maps gives."""
    head = make_head()
    outputs = make_outputs(head, 1)
    meta = dict(META, img_shape=(64, 33))  # 5 columns of stride 8, 3 of stride 16
    result = head.predict_by_feat(*outputs, batch_img_metas=[meta], with_nms=False)[0]
    cut = [[x[..., :columns] for x, columns in zip(maps, (5, 3))] for maps in outputs]
    expected = head.predict_by_feat(*cut, batch_img_metas=[meta], with_nms=False)[0]
    assert 0 < len(result) == len(expected)
    assert torch.allclose(result.bboxes, expected.bboxes)


@pytest.mark.parametrize('points', [1, 4, 68])
def test_any_number_of_landmarks(points):
    head = make_head(landmark_coder=dict(type='LandmarkCoder', num_points=points))
    faces = make_faces(TWO, torch.rand(2, points, 2) * 30, torch.ones(2, points))
    outputs = make_outputs(head, 1)
    losses = head.loss_by_feat(*outputs, [faces], [META], None)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    (found,) = head.predict_by_feat(*outputs, [META])
    assert found.keypoints.shape == (len(found), points, 2)
    five = make_head()
    with pytest.raises(ValueError, match=rf'num_points: got 5, expected {points}'):
        five.loss_by_feat(*make_outputs(five, 1), [faces], [META], None)
