_base_ = './mask-rcnn_r50-spatial-bias-c2-c4_fpn_1x_coco.py'

# Spatial Bias, and one Poly-NL before the last residual block of c4.
model = dict(
    backbone=dict(
        sites=[dict(cfg=dict(type='PolyNL', context_norm=True), stage='c4', before_block=-1)]
    )
)
