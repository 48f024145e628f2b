_base_ = './mask-rcnn_r18-c2-c3_fpn_toy-far-cue.py'

# With Poly-NL right before the last residual block of res3.
model = dict(
    backbone=dict(
        sites=[dict(cfg=dict(type='PolyNL'), stage='c3', before_block=-1)],
    )
)
