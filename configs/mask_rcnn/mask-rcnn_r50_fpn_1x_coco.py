# The control: mmdet's config without any new layer. All other configs of this folder begin here, so
# that a pair of them differs in the layer alone. What is added to mmdet's: the registrations, a
# data set class that compares the annotation file with the config before training starts, a metric
# that gives an AP of 0 where nothing was detected, and four hooks.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)

# The file that mmdet's 'torchvision://resnet50' stands for; torchvision is not needed.
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')
    )
)
train_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
val_evaluator = dict(type='CheckedCocoMetric')
test_evaluator = dict(type='CheckedCocoMetric')

# Checkpoints that survive kills and full disks, exact --resume, a stop at the first loss that is
# not finite, and a count of images that cannot be read (docs/reliability.md). To turn one off:
#   --cfg-options default_hooks.checkpoint.type=CheckpointHook    (mmengine's own)
#   --cfg-options default_hooks.resume_state.type=mmengine.hooks.Hook    (which does nothing)
# and the latter for non_finite and bad_images too.
default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook'),
    resume_state=dict(type='ResumeStateHook'),
    non_finite=dict(type='NonFiniteStopHook'),
    bad_images=dict(type='BadImageHook'),
)
