_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# Spatial Bias in every bottleneck of c2 to c4, three maps on a grid of 10 x 10, as in its paper.
# Only the stem is frozen: in a frozen c2 the new maps would stay zero. With mmdet's norm_eval=True
# the new batch norms keep their initial statistics and only scale and shift.
model = dict(backbone=dict(type='SpatialBiasResNet', frozen_stages=0))
