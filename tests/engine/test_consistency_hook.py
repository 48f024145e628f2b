"""Parts of a run that do not fit stop it before its first step; what mmdet accepts passes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from coco_files import NAMES, make_coco
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from polynl_mmdet.engine.consistency_hook import check_num_classes
from polynl_mmdet.models.config_check import check_model

register_all_modules()


class Head(nn.Module):
    """A head."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.zeros(num_classes))


class Detector(BaseModel):
    """Heads alone."""

    def __init__(self, *num_classes):
        super().__init__()
        self.bbox_head = nn.ModuleList(Head(count) for count in num_classes)

    def forward(self, **kwargs):
        """Never called."""
        raise AssertionError('the run has started')


@pytest.fixture
def run(tmp_path):
    """Callable: trains or tests with some files."""
    count = iter(range(100))

    def build(
        train=None,
        val=None,
        evaluator=None,
        heads=(3,),
        classes=(NAMES, NAMES),
        kinds=('OrderedCoco', 'OrderedCoco', 'OrderedCoco'),
        wrap=lambda dataset: dataset,
        start='train',
        **kwargs,
    ):
        paths = [tmp_path / f'{name}.json' for name in ('train', 'val', 'evaluator')]
        default = make_coco(paths[0])
        for path, content in zip(paths, (train, val, evaluator or val)):
            path.write_text(json.dumps(content or default))

        def loader(index):
            dataset = dict(
                type=f'{kinds[index]}Dataset',
                ann_file=str(paths[index]),
                data_prefix=dict(img=''),
                metainfo=dict(classes=classes[index]),
                test_mode=index == 1,
                serialize_data=False,  # Which collects garbage, for a second.
            )
            return dict(
                batch_size=1,
                num_workers=0,
                dataset=dataset if index else wrap(dataset),
                sampler=dict(type='DefaultSampler', shuffle=False),
            )

        if start == 'train':
            kwargs.update(
                train_dataloader=loader(0),
                train_cfg=dict(by_epoch=True, max_epochs=1),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            )
        runner = Runner(
            Detector(*heads),
            str(tmp_path / 'work'),
            val_dataloader=loader(1),
            val_evaluator=dict(type=f'{kinds[2]}Metric', ann_file=str(paths[2])),
            val_cfg=dict(),
            custom_hooks=[dict(type='ConsistencyHook')],
            default_scope='mmdet',
            experiment_name=f'{tmp_path.name}{next(count)}',
            **kwargs,
        )
        getattr(runner, start)()

    return build


STARTED = pytest.raises(AssertionError, match='the run has started')
ORDERED, MMDET = ('OrderedCoco',) * 3, ('Coco',) * 3


@pytest.mark.parametrize(
    ('kinds', 'start', 'wrap'),
    [
        (ORDERED, 'val', lambda d: d),
        (MMDET, 'train', lambda d: d),
        (ORDERED, 'train', lambda d: dict(type='RepeatDataset', times=2, dataset=d)),
        (MMDET, 'train', lambda d: dict(type='ConcatDataset', datasets=[d, d])),
        (
            ORDERED,
            'train',
            lambda d: dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=d),
        ),
        (MMDET, 'train', lambda d: dict(type='MultiImageMixDataset', dataset=d, pipeline=[])),
    ],
)
def test_number_of_classes(run, kinds, start, wrap):
    with STARTED:
        run(kinds=kinds, start=start, wrap=wrap)
    with pytest.raises(
        ValueError, match=r'bbox_head\.0\.num_classes=80, .*expected 3.*circle'
    ) as e:
        run(heads=(80, 3, 2), kinds=kinds, start=start, wrap=wrap)
    assert 'bbox_head.2.num_classes=2' in str(e.value)
    assert 'bbox_head.1' not in str(e.value)


@pytest.mark.parametrize(('kinds', 'start'), [(ORDERED, 'train'), (MMDET, 'val')])
def test_evaluator_of_other_images(run, tmp_path, start, kinds):
    content = make_coco(tmp_path / 'x.json')
    images = content['images']

    def named(prefix):
        return [dict(image, file_name=f'{prefix}{image["id"]}.jpg') for image in images]

    for evaluator, message in (
        ({**content, 'images': named('b')}, r'image 1 is .*1\.jpg in the data set and b1\.jpg'),
        ({**content, 'images': images[:2]}, r'image 3 is .* and missing'),
        (make_coco(tmp_path / 'y.json', seed=1), 'no box is in both'),
    ):
        with pytest.raises(ValueError, match=message):
            run(evaluator=evaluator, start=start, kinds=kinds)
    with STARTED:  # The same images, with a folder.
        run(evaluator={**content, 'images': named('a/')}, start=start, kinds=kinds)


def test_order_of_classes(run, tmp_path):
    content = make_coco(tmp_path / 'x.json')
    other = {**content, 'categories': content['categories'][::-1]}
    renamed = {**content, 'categories': [{**c, 'id': 4 - c['id']} for c in content['categories']]}
    for kwargs in (
        dict(train=content, val=other),  # By name, whatever the files say.
        dict(train=content, val=renamed),  # Other ids of the same names.
        dict(train=other, val=other, kinds=MMDET),  # In one order that is not the config's.
    ):
        with STARTED:
            run(**kwargs)
    with pytest.raises(ValueError, match='different classes'):
        run(train=content, val=other, classes=(NAMES, NAMES[::-1]))
    for kinds in (MMDET, ('OrderedCoco', 'Coco', 'Coco')):
        with pytest.raises(ValueError, match='another order'):
            run(train=content, val=other, kinds=kinds)
    with pytest.raises(ValueError, match='another order'):
        run(train=other, val=content, kinds=('Coco', 'OrderedCoco', 'OrderedCoco'))


@pytest.mark.parametrize('kinds', [ORDERED, MMDET])
def test_a_missing_comma(run, kinds):
    with pytest.raises(ValueError, match=r"classes='circle', expected a tuple: \('circle',\)"):
        run(classes=('circle', 'circle'), heads=(1,), kinds=kinds)


def test_checkpoints(run, tmp_path, capfd):
    detector, path = Detector(3), tmp_path / 'best.pth'
    content = dict(
        state_dict=detector.state_dict(),
        meta=dict(epoch=0, iter=0, dataset_meta=dict(classes=NAMES[::-1])),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
    )
    torch.save(content, path)
    for start, resume in (('val', False), ('train', False), ('train', True)):
        with STARTED:
            run(load_from=str(path), start=start, resume=resume)
        out = ''.join(capfd.readouterr())
        assert "trained on the classes 'square', 'cross', 'circle'" in out
        assert ('no optimizer' in out) == resume
    torch.save(dict(state_dict={'fc.weight': torch.zeros(3)}), path)
    for start in ('val', 'train'):
        with pytest.raises(ValueError, match=r'best\.pth: fits 0 of the 1 weights'):
            run(load_from=str(path), start=start)


@pytest.mark.parametrize(
    'name',
    [
        'solov2/solov2_r50_fpn_1x_coco.py',
        'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
        'yolact/yolact_r50_1xb8-55e_coco.py',
        'detectors/detectors_htc-r50_1x_coco.py',
        'fpg/retinanet_r50_fpg-chn128_crop640_50e_coco.py',
        'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        'dino/dino-4scale_r50_8xb2-12e_coco.py',
        'ssd/ssd300_coco.py',
        'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    ],
)
def test_detectors_of_mmdet_pass(name, tmp_path):
    (tmp_path / 'c.py').write_text(f"_base_ = 'mmdet::{name}'")
    cfg = Config.fromfile(tmp_path / 'c.py')
    check_model(cfg.model)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    dataset = cfg.train_dataloader.dataset
    dataset = DATASETS.get(dataset.get('dataset', dataset).type)
    check_num_classes(model, SimpleNamespace(metainfo=dataset.METAINFO))
    if 'panoptic' not in name:
        with pytest.raises(ValueError, match=r'head.*num_classes=80, expected 3'):
            check_num_classes(model, SimpleNamespace(metainfo=dict(classes=NAMES)))


def test_a_class_agnostic_mask_head_and_data_without_classes_pass():
    head = MODELS.build(dict(type='FCNMaskHead', class_agnostic=True))
    data = SimpleNamespace(metainfo=dict(classes=NAMES))
    check_num_classes(nn.ModuleDict(dict(mask_head=head)), data)
    check_num_classes(Detector(9), object())
