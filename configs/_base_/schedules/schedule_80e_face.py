# The schedule of RetinaFace's paper (Sec. 4.2): 32 images per step, learning rate 1e-3 rising to
# 1e-2 over 5 epochs, divided by 10 at epochs 55 and 68 of 80.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=80, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=5, convert_to_iter_based=True
    ),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=80, milestones=[55, 68], gamma=0.1),
]

# 8 GPUs x 4 images. Enable it (or --auto-scale-lr) where the total differs.
auto_scale_lr = dict(enable=False, base_batch_size=32)
