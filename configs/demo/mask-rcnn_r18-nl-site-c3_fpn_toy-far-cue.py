_base_ = './mask-rcnn_r18_fpn_toy-far-cue.py'

# With mmcv's non-local block right before the last residual block of c3.
model = dict(
    backbone=dict(
        sites=[
            dict(
                cfg=dict(type='NonLocal2d', reduction=2, mode='embedded_gaussian'),
                stage='c3',
                before_block=-1,
            )
        ],
    )
)
