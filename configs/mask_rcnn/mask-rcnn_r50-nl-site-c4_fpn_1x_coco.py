_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# A non-local block (mmcv's NonLocal2d, embedded Gaussian, half of the channels inside) at the site
# of mask-rcnn_r50-polynl-site-c4.
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
