# The control of the study on real images, without a layer: a small RetinaFace trained on real faces
# without landmarks. run.py trains it and its variants, and adds files, weights and schedule.
_base_ = [
    '../../configs/_base_/models/retinaface_mobilenet0.25_merge-fpn.py',
    '../../configs/_base_/datasets/wider_face.py',
    '../../configs/_base_/face_runtime.py',
]

model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.')))

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
        ann_file='wider_face_split/masks_train_bbx_gt.txt',
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(num_workers=1)
test_evaluator = dict(gt_dir=None)  # The study scores the written detections itself.
test_cfg = dict(type='TestLoop')
