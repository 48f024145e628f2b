# WIDER FACE as its authors publish it, with RetinaFace's training annotation (label.txt v1.1);
# docs/wider_face.md says where to get the files. Random crops, the size of 640 and the augmentation
# are those of RetinaFace's paper (Sec. 4.2).
dataset_type = 'RetinaFaceDataset'
data_root = 'data/widerface/'
backend_args = None

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadFaceAnnotations', with_bbox=True),
    dict(type='RandomSquareCrop', scale_range=(0.3, 1.0)),
    dict(type='FaceResize', scale=(640, 640), keep_ratio=False),
    dict(type='FaceRandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackFaceInputs'),
]
# Original size. The other setting of the usual test script: scale=(2150, 1600), short side 1,600
# and long side at most 2,150, instead of scale_factor.
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='FaceResize', scale_factor=1.0, keep_ratio=True),
    dict(type='LoadFaceAnnotations', with_bbox=True),
    dict(
        type='PackFaceInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='retinaface_gt_v1.1/train/label.txt',
        data_prefix=dict(img='WIDER_train/images/'),
        pipeline=train_pipeline,
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='wider_face_split/wider_face_val_bbx_gt.txt',
        data_prefix=dict(img='WIDER_val/images/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='WIDERFaceMetric', gt_dir=data_root + 'eval_tools/ground_truth')
test_evaluator = val_evaluator

# tools/test.py --tta: short side 500 to 1,700, each with its mirror image, and box voting at
# 0.4, as in RetinaFace's paper (Sec. 4.2).
tta_model = dict(type='FaceTTAModel', tta_cfg=dict(iou_thr=0.4, max_per_img=750))
tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='FaceResize', scale=(10000, side), keep_ratio=True)
                for side in (500, 800, 1100, 1400, 1700)
            ],
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
                        'flip_indices',
                    ),
                )
            ],
        ],
    ),
]
