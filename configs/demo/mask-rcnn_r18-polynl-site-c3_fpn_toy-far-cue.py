_base_ = './mask-rcnn_r18_fpn_toy-far-cue.py'

# With Poly-NL right before the last residual block of c3.
model = dict(
    backbone=dict(
        sites=[
            dict(cfg=dict(type='PolyNL', context_norm=dict(type='LN')), stage='c3', before_block=-1)
        ],
    )
)
