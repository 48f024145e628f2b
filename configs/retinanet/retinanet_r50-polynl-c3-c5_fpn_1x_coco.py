_base_ = './retinanet_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='PolyNL', context_norm=True),
                stages=(False, True, True, True),
                position='after_conv2',
            )
        ]
    )
)
