_base_ = './retinaface_r50_fpn_8xb4-80e_widerface.py'

# One Poly-NL right before the last residual block of c4: the place of the single block in the
# non-local paper (Wang et al., CVPR 2018). The paper of Poly-NL reports WIDER FACE APs of a
# "Poly-NL (ResNet-50)"; its detector, its place for the layer and its test scales are not known
# to us, so this is not that model.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[dict(cfg=dict(type='PolyNL', context_norm=True), stage='c4', before_block=-1)],
    )
)
