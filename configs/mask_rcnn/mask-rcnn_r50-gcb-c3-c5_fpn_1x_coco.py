_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# GCNet's global context block (mmcv's ContextBlock) in the position of mask-rcnn_r50-polynl-c3-c5,
# where a block has a quarter of the channels: ratio 1/4 gives the hidden channels of GCNet's r16.
model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='ContextBlock', ratio=1 / 4),
                stages=(False, True, True, True),
                position='after_conv2',
            )
        ]
    )
)
