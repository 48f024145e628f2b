_base_ = './retinaface_r50_fpn_8xb4-80e_widerface.py'

# A non-local block (mmcv's NonLocal2d, embedded Gaussian, half of the channels inside) at the site
# of retinaface_r50-polynl-site-c4. Its cost is quadratic in the 13,500 positions of a stride-16 map
# of 1,600 x 2,150 pixels.
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
