# The baseline: RetinaFace with a ResNet-50, without a context layer. Model and schedule follow
# RetinaFace's paper; the test size, short side 1,600 and long side at most 2,150, is that of the
# usual test script.
_base_ = [
    '../_base_/models/retinaface_r50_fpn.py',
    '../_base_/datasets/wider_face.py',
    '../_base_/schedules/schedule_80e_face.py',
    '../_base_/face_runtime.py',
]

test_pipeline = [
    dict(type='LoadImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='FaceResize', scale=(2150, 1600), keep_ratio=True),
    dict(type='LoadFaceAnnotations', with_bbox=True),
    dict(
        type='PackFaceInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
