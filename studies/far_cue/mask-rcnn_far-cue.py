# The control of the far-cue study, without a non-local layer: a small Mask R-CNN whose receptive
# field does not reach what decides the classes. run.py trains it and its variants.
_base_ = '../../configs/demo/mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py'

data_root = 'data/toy_far_cue/'
metainfo = dict(classes=('red', 'blue'), palette=[(220, 40, 40), (40, 60, 220)])
channels = 64

model = dict(
    backbone=dict(
        # Two stages, c2 and c3: a pixel of c3 sees 99 x 99 pixels.
        stem_channels=48,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        sites=[],
    ),
    neck=dict(in_channels=[32, 64], out_channels=channels, num_outs=2),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[4, 8]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, featmap_strides=[4, 8]),
        bbox_head=dict(
            in_channels=channels,
            fc_out_channels=128,
            num_classes=2,
            reg_class_agnostic=False,
            reg_decoded_bbox=False,
            loss_cls=dict(loss_weight=1.0),
            loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0),
        ),
        mask_roi_extractor=dict(out_channels=channels, featmap_strides=[4, 8]),
        mask_head=dict(in_channels=channels, conv_out_channels=channels, num_classes=2),
    ),
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=60),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.25)),
    ),
    test_cfg=dict(
        rpn=dict(max_per_img=60, nms=dict(iou_threshold=0.7)),
        rcnn=dict(max_per_img=20, nms=dict(_delete_=True, type='nms', iou_threshold=0.5)),
    ),
)

# No resizing: the study is about distances in pixels.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=1e-3))
