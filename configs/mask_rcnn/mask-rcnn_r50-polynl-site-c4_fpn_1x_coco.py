_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# One Poly-NL right before the last residual block of c4: the place of the single block in the
# non-local paper (Wang et al., CVPR 2018). Where the paper of Poly-NL puts its layers is not known
# to us.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[dict(cfg=dict(type='PolyNL', context_norm=True), stage='c4', before_block=-1)],
    )
)
