"""RetinaFace with a ResNet-50: pyramid levels P2 to P6, three square anchors on each.

Its paper (Deng et al., "RetinaFace", CVPR 2020, https://arxiv.org/abs/1905.00641, Sec. 4.2)
gives the levels, the anchors of 16 * 2 ** (k / 3) pixels, k = 0..14 (16 to 406), the context
modules, matching at IoU 0.5 and 0.3, three hard negatives for each positive, and the losses with
their weights. The dense regression branch is not implemented; deformable convolutions are off
(docs/wider_face.md). Test settings are those of the usual test script: score 0.02, 5,000
candidates, NMS at 0.4, 750 faces. Ours: anchor centres at (i + 0.5) * stride, and what mmdet does
with a pretrained ResNet-50 (frozen stem and c2, fixed norm statistics).
"""

model = dict(
    type='RetinaFace',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    neck=[
        dict(
            type='FPN',
            in_channels=[256, 512, 1024, 2048],
            out_channels=256,
            num_outs=5,
            add_extra_convs='on_input',
        ),
        dict(
            type='SSHContext',
            in_channels=256,
            out_channels=256,
            num_levels=5,
            norm_cfg=dict(type='BN', requires_grad=True),
        ),
    ],
    bbox_head=dict(
        type='RetinaFaceHead',
        num_classes=1,
        in_channels=256,
        share_levels=True,
        anchor_generator=dict(
            type='AnchorGenerator',
            strides=[4, 8, 16, 32, 64],
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[1.0],
            centers=[(2, 2), (4, 4), (8, 8), (16, 16), (32, 32)],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
            clip_border=False,
        ),
        landmark_coder=dict(type='LandmarkCoder', num_points=5, std=0.1),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=0.25),
        loss_landmark=dict(type='SmoothL1Loss', beta=1.0, loss_weight=0.1),
    ),
    train_cfg=dict(
        assigner=dict(type='FaceAssigner', pos_iou_thr=0.5, neg_iou_thr=0.3, ignore_iof_thr=0.5),
        neg_pos_ratio=3,
    ),
    test_cfg=dict(
        score_thr=0.02,
        nms_pre=5000,
        nms=dict(type='nms', iou_threshold=0.4, offset=1),
        max_per_img=750,
    ),
)
