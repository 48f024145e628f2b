_base_ = './retinaface_r50_fpn_8xb4-80e_widerface.py'

# The rival: mmcv's non-local block (embedded Gaussian, half of the channels inside) in the place
# of retinaface_r50-polynl-site-c4. Its cost grows with the square of the image's area: at 1,600
# x 2,150 pixels a map of stride 16 has 13,500 positions.
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
