_base_ = './retinaface_r50_fpn_8xb4-80e_widerface.py'

# One layer right before the last residual block of res4.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[dict(cfg=dict(type='PolyNL'), stage='c4', before_block=-1)],
    )
)
