_base_ = '../_base_/mask-rcnn_r50_fpn_1x_coco.py'

# One layer right before the last residual block of res4.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)],
    )
)
