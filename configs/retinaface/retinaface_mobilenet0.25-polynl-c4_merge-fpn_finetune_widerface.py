# Fine-tune a converted RetinaFace MobileNet-0.25 with a Poly-NL on the stride-16 map before the
# pyramid. The new layer starts as the identity, so AP before the first step is the checkpoint's.
# tools/convert_retinaface.py writes the checkpoint.
_base_ = './retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'

load_from = 'checkpoints/retinaface_mobilenet0.25.pth'

model = dict(
    neck=dict(
        _delete_=True,
        type='LevelContext',
        layer=dict(type='PolyNL', context_norm=True),
        levels=[1],
        in_channels=[64, 128, 256],
        neck=[
            dict(type='MergeFPN', in_channels=[64, 128, 256], out_channels=64),
            dict(type='SSHContext', in_channels=64, out_channels=64, num_levels=3),
        ],
    )
)

# One GPU, eight images per step; the new layer learns ten times as fast.
train_dataloader = dict(batch_size=8)
max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(
        custom_keys={
            '.site': dict(lr_mult=10),
            'poly_nl': dict(lr_mult=10),
            'neck.context': dict(lr_mult=10),
        }
    ),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min=1e-5,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
