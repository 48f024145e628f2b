_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

# Spatial Bias in every bottleneck of c2 to c4, three maps on a grid of 10 x 10: the setting of
# its paper. A frozen c2 (mmdet's frozen_stages=1) would keep its new maps at their initial zero,
# so only the stem is frozen here.
#
# norm_eval=True, which mmdet's base config has, also holds the two batch norms that each block
# gains at their initial statistics, mean 0 and variance 1: they do not normalise, and what is
# left of them is a learned scale and shift of each channel. With norm_eval=False they normalise
# as in the paper, and every other batch norm of the backbone then takes its statistics from your
# batches too.
model = dict(backbone=dict(type='SpatialBiasResNet', frozen_stages=0))
