_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# The rival: mmcv's non-local block (embedded Gaussian, half of the channels inside) in the place of
# mask-rcnn_r50-polynl-site-c4.
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
