_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# One Poly-NL before the last residual block of c4, where the non-local paper (Wang et al., CVPR
# 2018) puts a single block. The paper of Poly-NL does not say where it puts its layers.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[dict(cfg=dict(type='PolyNL', context_norm=True), stage='c4', before_block=-1)],
    )
)
