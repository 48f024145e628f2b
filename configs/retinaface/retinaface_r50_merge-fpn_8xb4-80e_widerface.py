# The lighter layout with ResNet-50, tested at original size.
_base_ = [
    '../_base_/models/retinaface_r50_merge-fpn.py',
    '../_base_/datasets/wider_face.py',
    '../_base_/schedules/schedule_80e_face.py',
    '../_base_/face_runtime.py',
]
