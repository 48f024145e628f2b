"""The lighter RetinaFace layout: strides 8, 16 and 32, two anchors on each level.

Layout, anchors, pixel normalisation and test settings are those of the PyTorch port
https://github.com/biubug6/Pytorch_Retinaface, so that its weights, converted, give the
detections that they give there. Matching and losses are those of retinaface_r50_fpn.py.
"""

_base_ = './retinaface_r50_fpn.py'

model = dict(
    data_preprocessor=dict(mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    # These pixels are not scaled as the ImageNet weights' were: every norm must learn.
    backbone=dict(out_indices=(1, 2, 3), frozen_stages=-1, norm_eval=False),
    neck=[
        dict(type='MergeFPN', in_channels=[512, 1024, 2048], out_channels=256),
        dict(type='SSHContext', in_channels=256, out_channels=256, num_levels=3),
    ],
    bbox_head=dict(
        share_levels=False,
        anchor_generator=dict(
            _delete_=True,
            type='AnchorGenerator',
            strides=[8, 16, 32],
            base_sizes=[16, 64, 256],
            scales=[1.0, 2.0],
            ratios=[1.0],
            centers=[(4, 4), (8, 8), (16, 16)],
        ),
    ),
)
