"""Faces of one's own: a flat folder of images, trained and judged by its own annotation file."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS

from polynl_mmdet.wider_face.annotations import read_annotations

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/retinaface/retinaface_mobilenet0.25_merge-fpn_own-faces.py'
FORMATS = ('bbx_gt', 'label', 'labelv2')


@pytest.fixture(scope='module')
def faces(data_root, tmp_path_factory):
    """Six real images in a flat folder, and their boxes in each format; converted weights."""
    real = data_root / 'real_study/face'
    folder = tmp_path_factory.mktemp('faces')
    (folder / 'images').mkdir()
    found = read_annotations(real / 'wider_face_split/masks_val_bbx_gt.txt')
    texts = dict.fromkeys((*FORMATS, 'plates'), '')
    for index, name in enumerate(found.names[:6]):
        image = cv2.imread(str(real / 'WIDER_val/images' / name))
        height, width = image.shape[:2]
        name = f'my face {index}.jpg'
        cv2.imwrite(str(folder / 'images' / name), image)
        corners = found.boxes()[found.starts[index] : found.starts[index + 1]].astype(int)
        texts['bbx_gt'] += f'{name}\n{len(corners)}\n'
        texts['label'] += f'# {name}\n'
        texts['labelv2'] += f'# {name} {width} {height}\n'
        texts['plates'] += f'# {name}\n'
        for x1, y1, x2, y2 in corners:
            box = f'{x1} {y1} {x2 - x1} {y2 - y1}'
            texts['bbx_gt'] += f'{box}\n'
            texts['label'] += f'{box}{" -1" * 15} 0.5\n'
            texts['labelv2'] += f'{x1} {y1} {x2} {y2}\n'
            texts['plates'] += f'{box} {x1} {y1} 0 {x2} {y1} 0 {x2} {y2} 0 {x1} {y2} 0\n'
    for fmt, text in texts.items():
        (folder / f'{fmt}.txt').write_text(text)
    return folder


def train(run_tool, faces, work_dir, fmt, *options):
    """Train the config, small, on these faces."""
    each = [
        f'{split}_dataloader.{option}'
        for split in ('train', 'val')
        for option in (f'dataset.data_root={faces}/', f'dataset.ann_file={fmt}.txt',
                       'num_workers=0', 'persistent_workers=False')
    ]  # fmt: skip
    return run_tool('train.py', CONFIG, '--work-dir', work_dir, '--cfg-options', *each,
                    'train_cfg.max_epochs=1', 'train_dataloader.batch_size=3',
                    'train_dataloader.dataset.pipeline.3.scale=(128,128)', *options)  # fmt: skip


def test_trains_and_keeps_the_best(run_tool, data_root, faces, tmp_path):
    weights = tmp_path / 'retinaface.pth'
    source = data_root / 'retinaface_mobilenet025/mobilenet0.25_Final.pth'
    assert run_tool('convert_retinaface.py', source, weights).returncode == 0
    done = train(run_tool, faces, tmp_path, 'bbx_gt', f'load_from={weights}')
    assert done.returncode == 0, done.stdout
    assert (tmp_path / 'best_pascal_voc_mAP_epoch_1.pth').is_file()
    # Weights of WIDER FACE, fine-tuned for two small steps, find most of these faces.
    assert float(re.findall(r'pascal_voc/mAP: (\S+)', done.stdout)[-1]) > 0.5


def test_objects_with_four_landmarks(run_tool, faces, tmp_path):
    """The corners of plates instead of eyes, nose and mouth: training, validation, checkpoint."""
    names = ['top_left', 'top_right', 'bottom_right', 'bottom_left']
    landmarks = f'dataset.metainfo.landmarks={",".join(names)}'
    coder = 'model.bbox_head.landmark_coder'
    done = train(run_tool, faces, tmp_path, 'plates', f'train_dataloader.{landmarks}',
                 f'val_dataloader.{landmarks}', 'load_from=None', f'{coder}.type=LandmarkCoder',
                 f'{coder}.num_points=4')  # fmt: skip
    assert done.returncode == 0, done.stdout
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert list(saved['meta']['dataset_meta']['landmarks']) == names
    assert saved['state_dict']['bbox_head.conv_landmark.0.weight'].shape[0] == 2 * 4 * 2
    assert float(re.findall(r'loss_landmark: (\S+)', done.stdout)[0]) > 0


@pytest.mark.parametrize('fmt', FORMATS)
def test_average_precision_of_ones_own_boxes(faces, fmt):
    """Perfect boxes: 1; the first half of each image's boxes and a false one: less."""
    cfg = Config.fromfile(CONFIG)
    cfg.val_dataloader.dataset.update(data_root=f'{faces}/', ann_file=f'{fmt}.txt')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    for share, low, high in ((1, 1, 1), (0.5, 0.4, 0.9)):
        metric = METRICS.build(cfg.val_evaluator)
        metric.dataset_meta = dataset.metainfo
        for sample in dataset:
            sample = sample['data_samples'].to_dict()
            for part in ('gt_instances', 'ignored_instances'):
                sample[part]['bboxes'] = sample[part]['bboxes'].tensor
            kept = sample['gt_instances']['bboxes']
            if share < 1:
                kept = kept[: int(np.ceil(share * len(kept)))]
                kept = torch.cat([kept, torch.tensor([[0.0, 0, 3, 3]])])
            scores, labels = torch.linspace(0.9, 0.1, len(kept)), kept.new_zeros(len(kept)).long()
            sample['pred_instances'] = dict(bboxes=kept, scores=scores, labels=labels)
            metric.process({}, [sample])
        assert low <= metric.evaluate(len(dataset))['pascal_voc/mAP'] <= high


def test_missing_images_are_found_before_the_first_step(faces):
    dataset = Config.fromfile(CONFIG).val_dataloader.dataset
    dataset.update(data_root=f'{faces}/', ann_file='label.txt')
    DATASETS.build(dataset).check_files()
    dataset.update(data_prefix=dict(img='other/'))
    with pytest.raises(ValueError, match=r'label\.txt: 6 of 6 images do not exist, such as .*oth'):
        DATASETS.build(dataset).check_files()


def test_official_ground_truth_for_ones_own_faces_stops_before_the_first_step(
    run_tool, data_root, faces, tmp_path
):
    gt_dir = data_root / 'wider_eval/ground_truth'
    done = train(run_tool, faces, tmp_path, 'label', 'load_from=None',
                 'val_evaluator._delete_=True', 'val_evaluator.type=WIDERFaceMetric',
                 f'val_evaluator.gt_dir={gt_dir}')  # fmt: skip
    assert done.returncode == 2, done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert 'none of the 6 images of the dataset is in the ground truth' in last
    assert "use mmdet's VOCMetric" in last
    assert 'Epoch(train)' not in done.stdout
