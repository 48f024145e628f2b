# The lighter layout with MobileNetV1-0.25, tested at original size.
_base_ = [
    '../_base_/models/retinaface_mobilenet0.25_merge-fpn.py',
    '../_base_/datasets/wider_face.py',
    '../_base_/schedules/schedule_80e_face.py',
    '../_base_/face_runtime.py',
]
