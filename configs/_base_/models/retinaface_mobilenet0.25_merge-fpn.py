"""The lighter RetinaFace layout with MobileNetV1-0.25 and 64 channels."""

_base_ = './retinaface_r50_merge-fpn.py'

model = dict(
    backbone=dict(_delete_=True, type='MobileNetV1', widen_factor=0.25),
    neck=[
        dict(type='MergeFPN', in_channels=[64, 128, 256], out_channels=64),
        dict(type='SSHContext', in_channels=64, out_channels=64, num_levels=3),
    ],
    bbox_head=dict(in_channels=64),
)
