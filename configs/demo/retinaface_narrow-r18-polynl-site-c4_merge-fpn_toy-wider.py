# RetinaFace on a ResNet-18 of 3/8 of the channels, with Poly-NL, trained from scratch on drawn
# faces of 8 to 150 pixels in a few minutes on a CPU. `make demo-face` draws them and runs this.
_base_ = [
    '../_base_/models/retinaface_r50_merge-fpn.py',
    '../_base_/datasets/wider_face.py',
    '../_base_/face_runtime.py',
]

data_root = 'data/toy_wider/'
max_epochs = 8  # of 250 steps

model = dict(
    backbone=dict(
        type='SiteResNet',
        depth=18,
        base_channels=24,
        init_cfg=None,
        sites=[dict(cfg=dict(type='PolyNL', context_norm=True), stage='c4', before_block=-1)],
    ),
    neck=[
        dict(type='MergeFPN', in_channels=[48, 96, 192], out_channels=64),
        dict(type='SSHContext', in_channels=64, out_channels=64, num_levels=3),
    ],
    bbox_head=dict(
        in_channels=64,
        anchor_generator=dict(base_sizes=[16, 45, 126], scales=[1.0, 1.41, 2.0]),
        # With far fewer steps than WIDER FACE's schedule, all three need more say.
        loss_cls=dict(loss_weight=4.0),
        loss_bbox=dict(loss_weight=0.5),
        loss_landmark=dict(beta=0.2, loss_weight=3.0),
    ),
    # With RetinaFace's 0.3 and 3, anchors that hold half a face or two faces, and most of the
    # background, teach nothing: scores stay high there, and large faces are found twice.
    train_cfg=dict(assigner=dict(neg_iou_thr=0.5), neg_pos_ratio=20),
    # No two drawn faces touch.
    test_cfg=dict(nms=dict(iou_threshold=0.2)),
)

# Images are enlarged, in training by 1 to 2.5 and in testing by 1.75: landmarks of small faces lie
# closer together than a stride. More, and the largest faces would be larger than any in training,
# and found twice.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadFaceAnnotations', with_bbox=True),
    dict(type='RandomSquareCrop', scale_range=(0.4, 1.0)),
    dict(type='FaceResize', scale=(256, 256), keep_ratio=False),
    dict(type='FaceRandomFlip', prob=0.5),
    dict(type='PackFaceInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='FaceResize', scale_factor=1.75, keep_ratio=True),
    dict(type='LoadFaceAnnotations', with_bbox=True),
    dict(
        type='PackFaceInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        ann_file='retinaface_gt_v1.1/val/label.txt',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='WIDERFaceMetric', gt_dir=data_root + 'eval_tools/ground_truth'),
    dict(type='FaceLandmarkMetric'),
]
test_evaluator = val_evaluator

# --tta: with the mirror image: landmarks are averaged over the two. A false box in any view stays,
# so that more scales would add some.
tta_model = dict(tta_cfg=dict(iou_thr=0.2))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='FaceResize', scale_factor=1.75, keep_ratio=True)],
            [dict(type='FaceRandomFlip', prob=0.0), dict(type='FaceRandomFlip', prob=1.0)],
            [dict(type='LoadFaceAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackFaceInputs',
                    meta_keys=(
                        'img_id',
                        'img_path',
                        'ori_shape',
                        'img_shape',
                        'scale_factor',
                        'flip',
                        'flip_direction',
                    ),
                )
            ],
        ],
    ),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.02),
    clip_grad=dict(max_norm=35),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=3e-5,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=10),
    visualization=dict(score_thr=0.5),
    checkpoint=dict(interval=max_epochs, max_keep_ckpts=1, save_best=None, rule=None),
)
randomness = dict(seed=0)
