_base_ = './mask-rcnn_r18-nl-site-c3_fpn_toy-far-cue.py'

# With the norm that the non-local paper puts behind the block's last convolution (Sec. 4.1).
model = dict(
    backbone=dict(
        sites=[
            dict(
                cfg=dict(
                    type='NonLocal2d',
                    reduction=2,
                    mode='embedded_gaussian',
                    norm_cfg=dict(type='BN'),
                ),
                stage='c3',
                before_block=-1,
            )
        ],
    )
)
