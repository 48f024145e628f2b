_base_ = './mask-rcnn_r18_fpn_toy-far-cue.py'

# With the paper's Poly-NL, no norm over its context, right before the last residual block of c3.
model = dict(
    backbone=dict(sites=[dict(cfg=dict(type='PolyNL'), stage='c3', before_block=-1)]),
)
