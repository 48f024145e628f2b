_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# Poly-NL after the 3x3 convolution of every bottleneck of c3 to c5, where channels are fewest.
model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='PolyNL', context_norm=True),
                stages=(False, True, True, True),
                position='after_conv2',
            )
        ]
    )
)
