# Fine-tune mmdet's COCO-trained Mask R-CNN, with a Poly-NL added, on classes of your own: one GPU,
# four images per step. Set data_root and the classes; the annotation files are COCO's format.
_base_ = './mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py'

data_root = 'data/custom/'
metainfo = dict(classes=('cat', 'dog'))

# Layers whose shape depends on the number of classes are initialised, the rest is loaded.
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r50_fpn_1x_coco/mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth'
num_classes = len(metainfo['classes'])
model = dict(
    backbone=dict(init_cfg=None),
    roi_head=dict(bbox_head=dict(num_classes=num_classes), mask_head=dict(num_classes=num_classes)),
)

train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# Half of what 16 images per step at 0.02 scale to; the new layer learns ten times as fast. The keys
# match every way to insert a layer: `sites`, `plugins` and LevelContext.
optim_wrapper = dict(
    optimizer=dict(lr=0.0025),
    paramwise_cfg=dict(
        custom_keys={
            '.site': dict(lr_mult=10),
            'poly_nl': dict(lr_mult=10),
            'neck.context': dict(lr_mult=10),
        }
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=4)
