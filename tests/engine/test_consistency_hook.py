"""Parts of a run that do not fit stop it before its first step; what mmdet accepts passes."""

from __future__ import annotations

import json

import pytest
import torch
from coco_files import NAMES, make_coco
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from polynl_mmdet.engine.consistency_hook import check_num_classes

register_all_modules()


class Head(nn.Linear):
    """A head."""

    def __init__(self, num_classes):
        super().__init__(4, num_classes)
        self.num_classes = num_classes


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
    """Callable: trains or tests with some files; gives the runner."""
    count = iter(range(100))

    def build(
        train=None,
        val=None,
        evaluator=None,
        heads=(3,),
        classes=(NAMES, NAMES),
        kinds=('OrderedCoco', 'OrderedCoco', 'OrderedCoco'),
        wrap=lambda dataset: dataset,
        load_from=None,
        resume=False,
        start='train',
    ):
        paths = [tmp_path / f'{name}.json' for name in ('train', 'val', 'evaluator')]
        default = make_coco(paths[0])
        for path, content in zip(paths, (train, val, evaluator or val)):
            path.write_text(json.dumps(content or default))

        def loader(path, kind, names):
            dataset = dict(
                type=f'{kind}Dataset',
                ann_file=str(path),
                data_prefix=dict(img=''),
                metainfo=dict(classes=names),
                test_mode=path != paths[0],
                serialize_data=False,  # Which collects garbage, for a second.
            )
            return dict(
                batch_size=1,
                num_workers=0,
                dataset=wrap(dataset) if path == paths[0] else dataset,
                sampler=dict(type='DefaultSampler', shuffle=False),
            )

        test = dict(
            val_dataloader=loader(paths[1], kinds[1], classes[1]),
            val_evaluator=dict(type=f'{kinds[2]}Metric', ann_file=str(paths[2])),
            val_cfg=dict(),
        )
        train = dict(
            train_dataloader=loader(paths[0], kinds[0], classes[0]),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
        runner = Runner(
            Detector(*heads),
            str(tmp_path / 'work'),
            **(train if start == 'train' else {}),
            **test,
            custom_hooks=[dict(type='ConsistencyHook')],
            default_scope='mmdet',
            load_from=load_from,
            resume=resume,
            experiment_name=f'{tmp_path.name}{next(count)}',
        )
        getattr(runner, start)()

    return build


STARTED = pytest.raises(AssertionError, match='the run has started')


def swapped(content, *order):
    """The same file with its categories in another order."""
    return {**content, 'categories': [content['categories'][i] for i in order]}


@pytest.mark.parametrize('kind', ['OrderedCoco', 'Coco'])
@pytest.mark.parametrize(
    'wrap',
    [
        lambda d: d,
        lambda d: dict(type='RepeatDataset', times=2, dataset=d),
        lambda d: dict(type='ConcatDataset', datasets=[d, d]),
        lambda d: dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=d),
        lambda d: dict(type='MultiImageMixDataset', dataset=d, pipeline=[]),
    ],
    ids=['plain', 'repeat', 'concat', 'balanced', 'mix'],
)
def test_number_of_classes(run, kind, wrap):
    kinds, start = (kind,) * 3, 'train' if kind == 'Coco' else 'val'
    with STARTED:
        run(kinds=kinds, start=start, wrap=wrap)
    with pytest.raises(
        ValueError, match=r'bbox_head\.0\.num_classes=80, .*expected 3.*circle'
    ) as e:
        run(heads=(80, 3, 2), kinds=kinds, start=start, wrap=wrap)
    assert 'bbox_head.2.num_classes=2' in str(e.value)
    assert 'bbox_head.1' not in str(e.value)


@pytest.mark.parametrize('start', ['train', 'val'])
@pytest.mark.parametrize('kind', ['OrderedCoco', 'Coco'])
def test_evaluator_of_other_images(run, tmp_path, start, kind):
    kinds = (kind,) * 3
    content = make_coco(tmp_path / 'x.json')
    images = content['images']
    other_names = {**content, 'images': [dict(i, file_name=f'b{i["id"]}.jpg') for i in images]}
    with pytest.raises(ValueError, match=r'image 1 is .*1\.jpg in the data set and b1\.jpg'):
        run(evaluator=other_names, start=start, kinds=kinds)
    with pytest.raises(ValueError, match=r'image 3 is .* and missing'):
        run(evaluator={**content, 'images': images[:2]}, start=start, kinds=kinds)
    boxes = make_coco(tmp_path / 'y.json', seed=1)
    with pytest.raises(ValueError, match='no box is in both'):
        run(evaluator=boxes, start=start, kinds=kinds)
    folder = {**content, 'images': [dict(i, file_name=f'a/{i["id"]}.jpg') for i in images]}
    with STARTED:  # The same images, with a folder.
        run(evaluator=folder, start=start, kinds=kinds)


def test_order_of_classes(run, tmp_path):
    content = make_coco(tmp_path / 'x.json')
    other = swapped(content, 2, 1, 0)
    with STARTED:  # By name, whatever the files say.
        run(train=content, val=other)
    with pytest.raises(ValueError, match='different classes'):
        run(train=content, val=other, classes=(NAMES, NAMES[::-1]))
    for kinds in (('Coco', 'Coco', 'Coco'), ('OrderedCoco', 'Coco', 'Coco')):
        with pytest.raises(ValueError, match='another order'):
            run(train=content, val=other, kinds=kinds)
    with pytest.raises(ValueError, match='another order'):
        run(train=other, val=content, kinds=('Coco', 'OrderedCoco', 'OrderedCoco'))
    with STARTED:  # mmdet's own, in one order that is not the config's.
        run(train=other, val=other, kinds=('Coco', 'Coco', 'Coco'))
    renamed = dict(
        content, categories=[dict(id=4 - c['id'], name=c['name']) for c in content['categories']]
    )
    with STARTED:  # Other ids of the same names.
        run(train=content, val=renamed)


def test_a_missing_comma(run):
    for kind in ('OrderedCoco', 'Coco'):
        with pytest.raises(ValueError, match=r"classes='circle', expected a tuple: \('circle',\)"):
            run(classes=('circle', 'circle'), heads=(1,), kinds=(kind,) * 3)


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
        with pytest.raises(ValueError, match=r'best\.pth: fits 0 of the 2 weights'):
            run(load_from=str(path), start=start)


DETECTORS = [
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'solov2/solov2_r50_fpn_1x_coco.py',
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py',
    'yolact/yolact_r50_1xb8-55e_coco.py',
    'htc/htc_r50_fpn_1x_coco.py',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'detr/detr_r50_8xb2-150e_coco.py',
    'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ssd/ssd300_coco.py',
    'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
]


@pytest.mark.parametrize('name', DETECTORS)
def test_heads_of_mmdets_detectors(name, tmp_path):
    (tmp_path / 'c.py').write_text(f"_base_ = 'mmdet::{name}'")
    cfg = Config.fromfile(tmp_path / 'c.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    dataset = DATASETS.get(
        cfg.train_dataloader.dataset.get('dataset', cfg.train_dataloader.dataset).type
    )
    data = type('Data', (), dict(metainfo=dict(dataset.METAINFO)))()
    check_num_classes(model, data)
    if 'panoptic' in name:
        return
    data.metainfo = dict(classes=NAMES)
    with pytest.raises(ValueError, match=r'head.*num_classes=80, expected 3'):
        check_num_classes(model, data)


def test_a_class_agnostic_mask_head_fits_any_classes():
    head = dict(type='FCNMaskHead', class_agnostic=True)
    model = nn.ModuleDict(dict(mask_head=MODELS.build(head)))
    check_num_classes(model, type('Data', (), dict(metainfo=dict(classes=NAMES)))())


def test_metrics_without_a_file_and_data_without_classes_pass():
    check_num_classes(Detector(9), object())
    assert METRICS.get('OrderedCocoMetric')
