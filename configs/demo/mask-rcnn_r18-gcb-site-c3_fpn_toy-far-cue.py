_base_ = './mask-rcnn_r18_fpn_toy-far-cue.py'

# With mmcv's global context block right before the last residual block of c3.
model = dict(
    backbone=dict(
        sites=[dict(cfg=dict(type='ContextBlock', ratio=1.0 / 4), stage='c3', before_block=-1)],
    )
)
