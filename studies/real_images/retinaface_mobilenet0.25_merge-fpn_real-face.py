# The control of the study on real images, without a layer: a small RetinaFace trained on real faces
# without landmarks. run.py trains it and its variants with LevelContext.
_base_ = [
    '../../configs/_base_/models/retinaface_mobilenet0.25_merge-fpn.py',
    '../../configs/_base_/datasets/wider_face.py',
    '../../configs/_base_/face_runtime.py',
]

data_root = 'data/real_study/face/'

model = dict(
    backbone=dict(
        # tools/convert_retinaface.py writes it.
        init_cfg=dict(
            type='Pretrained', checkpoint='data/mobilenet0.25_imagenet.pth', prefix='backbone.'
        ),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadFaceAnnotations', with_bbox=True),
    dict(type='RandomSquareCrop', scale_range=(0.3, 1.0)),
    dict(type='FaceResize', scale=(320, 320), keep_ratio=False),
    dict(type='FaceRandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackFaceInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='wider_face_split/masks_train_bbx_gt.txt',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='wider_face_split/masks_val_bbx_gt.txt',
        data_prefix=dict(img='WIDER_val/images/'),
    ),
)
test_dataloader = val_dataloader
# The study scores the written detections itself.
val_evaluator = dict(gt_dir=None, format_only=True, outfile_prefix='work_dirs/real_face_detections')
test_evaluator = val_evaluator

max_epochs = 8
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
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
auto_scale_lr = dict(enable=False, base_batch_size=8)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(
        interval=max_epochs, max_keep_ckpts=1, save_best=None, rule=None, save_optimizer=False
    ),
)
randomness = dict(seed=0)
