# The control of the study on real images, without a layer: a small Mask R-CNN finds one person in
# images of 320 pixels. run.py trains it and its variants, and adds files, weights and schedule.
_base_ = '../../configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

metainfo = dict(classes=('person',), palette=[(220, 20, 60)])
channels = 64
strides = [8, 16, 32]
roi_layer = dict(sampling_ratio=2)

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV1',
        widen_factor=0.25,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=channels, num_outs=4),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[*strides, 64]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=channels, featmap_strides=strides, roi_layer=roi_layer
        ),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, num_classes=1),
        mask_roi_extractor=dict(
            out_channels=channels, featmap_strides=strides, roi_layer=roi_layer
        ),
        mask_head=dict(in_channels=channels, conv_out_channels=channels, num_classes=1),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200), rcnn=dict(max_per_img=20)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=0),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(num_workers=1, dataset=dict(metainfo=metainfo, pipeline=test_pipeline))
