_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# GCNet's global context block (mmcv's ContextBlock, ratio 1/16) at the site of
# mask-rcnn_r50-polynl-site-c4.
model = dict(
    backbone=dict(
        type='SiteResNet',
        sites=[dict(cfg=dict(type='ContextBlock', ratio=1 / 16), stage='c4', before_block=-1)],
    )
)
