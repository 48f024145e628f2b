# mmdet's config with what every COCO config of this package adds: the registrations, a dataset
# class that compares the annotation file with the config before training starts, a metric that
# gives an AP of 0 where nothing was detected, and hooks for long trainings.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['polynl_mmdet'], allow_failed_imports=False)

train_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
val_evaluator = dict(type='CheckedCocoMetric')
test_evaluator = dict(type='CheckedCocoMetric')

# Checkpoints that survive kills and full disks, exact --resume, and a stop at the first loss that
# is not finite: docs/reliability.md.
default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook'),
    resume_state=dict(type='ResumeStateHook'),
    non_finite=dict(type='NonFiniteStopHook'),
    bad_images=dict(type='BadImageHook'),
)
