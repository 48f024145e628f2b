# Mask R-CNN on a ResNet-18 of half the channels, with Poly-NL, trained from scratch on drawn shapes
# in a few minutes on a CPU. `make demo` draws them and runs this.
_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

data_root = 'data/toy_coco/'
metainfo = dict(
    classes=('circle', 'rectangle', 'triangle', 'cross'),
    palette=[(220, 60, 60), (60, 180, 75), (255, 200, 30), (70, 110, 220)],
)
channels = 64
# From scratch, norms in the pyramid and the mask head make training quick.
norm_cfg = dict(type='BN')
# One sample a bin is enough for images of this size.
roi_layer = dict(sampling_ratio=1)

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        type='SiteResNet',
        depth=18,
        base_channels=32,
        stem_channels=32,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
        sites=[dict(cfg=dict(type='PolyNL', context_norm=True), stage='c4', before_block=-1)],
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, finest_scale=28, roi_layer=roi_layer),
        # From scratch, boxes take longest: one regression for all classes learns from every shape,
        # and the IoU that decides is its loss.
        bbox_head=dict(
            in_channels=channels,
            fc_out_channels=256,
            num_classes=4,
            reg_class_agnostic=True,
            reg_decoded_bbox=True,
            loss_cls=dict(loss_weight=2.0),
            loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=26.0),
        ),
        mask_roi_extractor=dict(out_channels=channels, finest_scale=28, roi_layer=roi_layer),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=32,
            num_classes=4,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=150),
        # Many negatives: parts of shapes and background get low scores.
        rcnn=dict(sampler=dict(num=128, pos_fraction=0.15)),
    ),
    # No two of these shapes share a box: NMS over all classes leaves each shape one. It lowers the
    # scores of overlapping boxes and keeps them: shapes do lie over each other.
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=150, nms=dict(iou_threshold=0.8)),
        rcnn=dict(
            max_per_img=50,
            nms=dict(type='soft_nms', iou_threshold=0.3, min_score=0.05, class_agnostic=True),
        ),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
# A fifth larger than in training: boxes and masks fit better.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(192, 192), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=0),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 4  # of 250 steps
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-2),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=0,
        T_max=max_epochs,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(
    logger=dict(interval=10),
    visualization=dict(score_thr=0.5),
    checkpoint=dict(interval=max_epochs, max_keep_ckpts=1),
)
randomness = dict(seed=0)
