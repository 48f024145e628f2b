_base_ = './mask-rcnn_r101-polynl-site-c4_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        type='SiteResNeXt',
        groups=32,
        base_width=4,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnext101_32x4d'),
    )
)
