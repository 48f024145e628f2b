_base_ = './retinaface_r50_fpn_8xb4-80e_widerface.py'

# One Poly-NL before the last residual block of c4, where the non-local paper (Wang et al., CVPR
# 2018) puts a single block. Not the "Poly-NL (ResNet-50)" of Poly-NL's paper, which does not say
# which detector, site and test scales that has.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[dict(cfg=dict(type='PolyNL', context_norm=True), stage='c4', before_block=-1)],
    )
)
