"""RetinaFaceDataset: what mmdet gets of each image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

MARKS = '11 12 0.0 21 13 0.0 15.5 17 1.0 12 22 0.0 -1.0 -1.0 -1.0'
NO_MARKS = ' '.join(['-1.0'] * 15)
LABEL = f"""# 0--A/p1.jpg
10 10 20 30 {MARKS} 0.9
40 40 5 6 {NO_MARKS} 0.9
1 1 0 9 {NO_MARKS} 0.9
# 0--A/empty.jpg
# 1--B/small.jpg
1 2 3 4 {NO_MARKS} 0.5
"""
OFFICIAL = """0--A/p1.jpg
2
10 10 20 30 0 0 0 0 0 0
40 40 9 9 0 0 0 1 0 0
0--A/empty.jpg
0
0 0 0 0 0 0 0 0 0 0
"""


@pytest.fixture
def build(tmp_path):
    """Build the dataset over a label text, with 64 x 48 images."""

    def make(text, **options):
        (tmp_path / 'label.txt').write_text(text)
        for name in ('0--A/p1', '0--A/empty', '1--B/small'):
            image = tmp_path / 'images' / f'{name}.jpg'
            image.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), np.full((48, 64, 3), 128, np.uint8))
        settings = dict(
            type='RetinaFaceDataset',
            data_root=str(tmp_path),
            ann_file='label.txt',
            data_prefix=dict(img='images'),
            pipeline=[],
        )
        return DATASETS.build({**settings, **options})

    return make


PACKED = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadFaceAnnotations', with_bbox=True),
    dict(type='PackFaceInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]


def test_samples(build):
    dataset = build(LABEL, pipeline=PACKED, min_size=6)
    assert len(dataset) == 3
    assert dataset.metainfo['classes'] == ('face',)
    assert dataset.get_data_info(0)['flip_indices'] == [1, 0, 2, 4, 3]
    assert dataset.get_cat_ids(0) == [0, 0]
    sample = dataset[0]
    faces, ignored = sample['data_samples'].gt_instances, sample['data_samples'].ignored_instances
    assert sample['inputs'].shape == (3, 48, 64)
    assert faces.bboxes.tensor.tolist() == [[10, 10, 30, 40]]
    assert faces.labels.tolist() == [0]
    assert faces.keypoints.tolist() == [[[11, 12], [21, 13], [15.5, 17], [12, 22], [-1, -1]]]
    assert faces.keypoints_visible.tolist() == [[1, 1, 1, 1, 0]]
    assert ignored.bboxes.tensor.tolist() == [[40, 40, 45, 46]]
    assert ignored.keypoints_visible.tolist() == [[0] * 5]
    assert str(faces.keypoints.dtype) == str(faces.keypoints_visible.dtype) == 'torch.float32'
    empty = dataset[1]['data_samples'].gt_instances
    assert empty.bboxes.tensor.shape == (0, 4)
    assert empty.keypoints.shape == (0, 5, 2)
    assert empty.keypoints_visible.shape == (0, 5)


@pytest.mark.parametrize(('text', 'min_size', 'ignored'), [
    (OFFICIAL, 0, [0, 1]), (LABEL, 6, [0, 1]), (LABEL, 5, [0, 0])])  # fmt: skip
def test_invalid_and_small_faces_are_ignored(build, text, min_size, ignored):
    instances = build(text, min_size=min_size).get_data_info(0)['instances']
    assert [instance['ignore_flag'] for instance in instances] == ignored


def test_images_without_faces_stay_unless_filtered(build):
    keep = dict(filter_empty_gt=True)
    assert len(build(LABEL)) == 3
    assert len(build(LABEL, filter_cfg=keep)) == 2
    assert len(build(LABEL, filter_cfg=keep, min_size=6)) == 1
    assert len(build(LABEL, filter_cfg=keep, test_mode=True)) == 3
    empty = '# 0--A/p1.jpg\n# 1--B/small.jpg\n'  # A list of images, for a submission.
    assert len(build(empty)) == len(build(empty, filter_cfg=keep, test_mode=True)) == 2
    for text, min_size in ((empty + '1 1 0 9\n', 0), (LABEL, 100)):
        with pytest.raises(ValueError, match=r'label\.txt: no image has a face to learn from'):
            build(text, filter_cfg=keep, min_size=min_size)
    with pytest.raises(ValueError, match=r'label\.txt:3: '):
        build(LABEL.replace('40 40 5', '40 40'))


@pytest.mark.parametrize(
    ('names', 'order'),
    [
        (('top_left', 'top_right', 'bottom_right', 'bottom_left'), [1, 0, 3, 2]),
        (('nose', 'left_ear_tip', 'chin', 'right_ear_tip'), [0, 3, 2, 1]),
        (('nose',), [0]),
        (('left_hand', 'head'), [0, 1]),
    ],
)
def test_other_landmarks_by_their_names(build, names, order):
    marks = ' '.join(f'{10 + 2 * n} {20 + n} 0' for n in range(len(names)))
    flip = [*PACKED[:2], dict(type='RandomSquareCrop', scale_range=(1.0, 1.0)),
            dict(type='FaceRandomFlip', prob=1.0), PACKED[2]]  # fmt: skip
    text = f'# 0--A/p1.jpg\n8 8 20 30 {marks}\n# 0--A/empty.jpg\n'
    dataset = build(text, metainfo=dict(landmarks=names), pipeline=flip)
    y = dataset[0]['data_samples'].gt_instances.keypoints[0, :, 1]
    assert y.tolist() == [20 + n for n in order]
    empty = dataset[1]['data_samples'].gt_instances
    assert empty.keypoints.shape == (0, len(names), 2)
    with pytest.raises(ValueError, match=rf'label\.txt: got {len(names)} landmarks .* expected 5'):
        build(text)
