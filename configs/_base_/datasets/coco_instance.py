_base_ = 'mmdet::_base_/datasets/coco_instance.py'

# Labels follow the order of `classes` in the config, whatever the order in the annotation file.
train_dataloader = dict(dataset=dict(type='OrderedCocoDataset'))
val_dataloader = dict(dataset=dict(type='OrderedCocoDataset'))
test_dataloader = dict(dataset=dict(type='OrderedCocoDataset'))
val_evaluator = dict(type='OrderedCocoMetric')
test_evaluator = dict(type='OrderedCocoMetric')
