_base_ = './mask-rcnn_r50-spatial-bias_fpn_1x_coco.py'

# Spatial Bias with one Poly-NL right before the last residual block of res4.
model = dict(backbone=dict(sites=[dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)]))
