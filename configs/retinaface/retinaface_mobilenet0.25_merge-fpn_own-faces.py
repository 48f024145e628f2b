# Faces of your own: a folder of images, and annotation files for training and for validation in any
# of the three formats, with or without landmarks. AP is PASCAL VOC's at IoU 0.5, over the boxes of
# the validation file. For one GPU, from a detector trained on WIDER FACE.
_base_ = './retinaface_mobilenet0.25_merge-fpn_8xb4-80e_widerface.py'

data_root = 'data/faces/'
train_dataloader = dict(
    batch_size=8,
    dataset=dict(data_root=data_root, ann_file='train.txt', data_prefix=dict(img='images/')),
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='val.txt', data_prefix=dict(img='images/'))
)
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='area')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='pascal_voc/mAP'))

# Weights of tools/convert_retinaface.py; None trains from scratch, for more epochs.
load_from = 'retinaface_mobilenet0.25.pth'
train_cfg = dict(max_epochs=20, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=20, milestones=[14, 18], gamma=0.1),
]
