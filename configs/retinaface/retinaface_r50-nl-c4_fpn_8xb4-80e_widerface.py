_base_ = './retinaface_r50_fpn_8xb4-80e_widerface.py'

# The control: mmcv's non-local block (embedded Gaussian, half of the channels inside) at the
# site of retinaface_r50-polynl-c4. Its cost grows with the square of the image's area: a map
# of stride 16 at test scale has about 13,000 positions.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[
            dict(
                cfg=dict(type='NonLocal2d', reduction=2, mode='embedded_gaussian'),
                stage='c4',
                before_block=-1,
            )
        ],
    )
)
