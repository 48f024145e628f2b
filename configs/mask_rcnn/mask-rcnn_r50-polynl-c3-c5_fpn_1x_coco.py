_base_ = '../_base_/mask-rcnn_r50_fpn_1x_coco.py'

# After the 3x3 convolution of every bottleneck of res3 to res5, by mmdet's own plugins.
model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='PolyNL'),
                stages=(False, True, True, True),
                position='after_conv2',
            )
        ]
    )
)
