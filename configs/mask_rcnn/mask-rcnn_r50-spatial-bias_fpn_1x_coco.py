_base_ = '../_base_/mask-rcnn_r50_fpn_1x_coco.py'

# In every bottleneck of res2 to res4, three maps on a grid of 10 x 10: the paper's setting. A
# frozen res2 (mmdet's frozen_stages=1) would keep its new maps at their initial zero, so only the
# stem is frozen here.
model = dict(backbone=dict(type='SpatialBiasResNet', frozen_stages=0))
