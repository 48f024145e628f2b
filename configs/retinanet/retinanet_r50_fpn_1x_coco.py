# The baseline, without a context layer: mmdet's config of this name with this package's data set
# class, metric and runtime. The other configs of this folder inherit from it.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
    'mmdet::retinanet/retinanet_tta.py',
]

# The file that mmdet's 'torchvision://resnet50' stands for; torchvision is not needed.
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')
    )
)

optim_wrapper = dict(optimizer=dict(lr=0.01))

default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
