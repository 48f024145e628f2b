"""The drawn faces: the same for a seed, in the official layout, and annotated where they are."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

from polynl_mmdet.datasets.toy.face_drawing import Head
from polynl_mmdet.datasets.toy.wider import draw_image, make_toy_wider
from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face import read_ground_truth, score_wider_face
from polynl_mmdet.wider_face.annotations import read_annotations

SIZE = 192


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """A small drawn set."""
    out = tmp_path_factory.mktemp('toy') / 'wider'
    make_toy_wider(out, train=60, val=60, seed=3, size=SIZE)
    return out


def digest(folder):
    """Hash of each file by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def official(toy, split='val'):
    """The official annotation of a split."""
    return read_annotations(toy / 'wider_face_split' / f'wider_face_{split}_bbx_gt.txt')


def test_the_same_seed_gives_the_same_bytes_in_another_process(toy, run_tool, tmp_path):
    out = tmp_path / 'again'
    numbers = ['--train', 60, '--val', 60, '--seed', 3, '--size', SIZE]
    done = run_tool('make_toy_data.py', 'wider', out, *numbers)
    assert done.returncode == 0, done.stdout
    assert digest(out) == digest(toy)


def test_images_do_not_depend_on_how_many_there_are(toy, tmp_path):
    make_toy_wider(tmp_path / 'few', train=2, val=1, seed=3, size=SIZE)
    more = digest(toy)
    few = {name: value for name, value in digest(tmp_path / 'few').items() if name.endswith('.jpg')}
    assert len(few) == 3
    assert few.items() <= more.items()


def test_other_seeds_and_splits_give_other_images():
    first = draw_image(0, 'train', 0, 96).image
    for other in (draw_image(1, 'train', 0, 96), draw_image(0, 'val', 0, 96)):
        assert (first != other.image).mean() > 0.5


@pytest.mark.parametrize('split', ['train', 'val'])
def test_both_annotations_name_the_images_and_agree(toy, split):
    boxes = official(toy, split)
    label = read_annotations(toy / 'retinaface_gt_v1.1' / split / 'label.txt')
    assert label.format == 'label'
    assert label.names == boxes.names
    assert len(set(label.names)) == 60
    valid = ~boxes.invalid()
    counts = [part.sum() for part in np.split(valid, boxes.starts[1:-1])]
    np.testing.assert_array_equal(np.diff(label.starts), counts)
    np.testing.assert_array_equal(label.boxes(), boxes.boxes()[valid])
    for name in label.names:
        assert cv2.imread(str(toy / f'WIDER_{split}' / 'images' / name)).shape == (SIZE, SIZE, 3)


def test_faces_are_of_all_kinds(toy):
    faces = official(toy)
    height = faces.rows[:, 3]
    assert 8 <= height.min() < 12
    assert height.max() > SIZE / 3
    assert (faces.boxes() >= 0).all()
    assert (faces.boxes() <= SIZE).all()
    assert 0.01 < faces.invalid().mean() < 0.15
    assert set(faces.rows[:, 8]) == {0, 1, 2}
    assert (np.diff(faces.starts) == 0).any()


def test_landmarks_lie_in_their_faces_and_in_order(toy):
    faces = read_annotations(toy / 'retinaface_gt_v1.1' / 'val' / 'label.txt')
    marks, annotated = faces.landmarks()
    np.testing.assert_array_equal(annotated.all(axis=1), faces.rows[:, 3] >= 12)
    boxes = faces.boxes()[:, None]
    inside = ((marks >= boxes[..., :2]) & (marks <= boxes[..., 2:])).all(axis=2)
    assert inside[annotated].all()
    left_eye, right_eye, nose, left_mouth, right_mouth = marks[annotated.all(axis=1)].transpose(
        1, 0, 2
    )
    assert (left_eye[:, 0] < right_eye[:, 0]).all()
    assert (left_mouth[:, 0] < right_mouth[:, 0]).all()
    assert (nose[:, 1] > (left_eye[:, 1] + right_eye[:, 1]) / 2).all()
    assert (nose[:, 1] < (left_mouth[:, 1] + right_mouth[:, 1]) / 2).all()


def test_eyes_are_dark_where_the_landmarks_say(toy):
    faces = read_annotations(toy / 'retinaface_gt_v1.1' / 'val' / 'label.txt')
    every = official(toy)
    free = every.rows[~every.invalid(), 8] == 0
    marks, annotated = faces.landmarks()
    eyes, cheeks = [], []
    for image, name in enumerate(faces.names):
        pixels = cv2.imread(str(toy / 'WIDER_val' / 'images' / name), cv2.IMREAD_GRAYSCALE)
        for face in range(faces.starts[image], faces.starts[image + 1]):
            if annotated[face].all() and free[face] and faces.rows[face, 3] > 30:
                for eye in (0, 1):
                    x, y = marks[face, eye].astype(int)
                    eyes.append(int(pixels[y, x]))
                    x, y = ((marks[face, eye] + marks[face, eye + 3]) / 2).astype(int)
                    cheeks.append(int(pixels[y, x]))
    assert len(eyes) > 50
    assert np.mean(np.array(eyes) < np.array(cheeks)) > 0.95


def test_ground_truth_has_the_official_nesting(toy):
    truth = read_ground_truth(toy / 'eval_tools' / 'ground_truth')
    faces = official(toy)
    assert [f'{name}.jpg' for name in truth.images] == faces.names
    np.testing.assert_array_equal(truth.boxes, faces.rows[:, :4])
    easy, medium, hard = truth.counted.values()
    assert (easy <= medium).all()
    assert (medium <= hard).all()
    assert 0 < easy.sum() < medium.sum() < hard.sum() < len(hard)
    assert not (hard & faces.invalid()).any()


def test_a_perfect_detector_scores_one(toy):
    truth = read_ground_truth(toy / 'eval_tools' / 'ground_truth')
    predictions = {
        name: np.c_[rows, np.linspace(0.5, 1, len(rows))]
        for name, rows in zip(truth.images, np.split(truth.boxes, truth.starts[1:-1]))
    }
    assert score_wider_face(predictions, truth).ap == dict(easy=1.0, medium=1.0, hard=1.0)


def test_the_dataset_serves_them(toy):
    dataset = DATASETS.build(
        dict(
            type='RetinaFaceDataset',
            data_root=str(toy),
            ann_file='retinaface_gt_v1.1/train/label.txt',
            data_prefix=dict(img='WIDER_train/images'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadFaceAnnotations', with_bbox=True),
                dict(type='RandomSquareCrop'),
                dict(type='FaceResize', scale=(128, 128)),
                dict(type='FaceRandomFlip', prob=0.5),
                dict(type='PhotoMetricDistortion'),
                dict(type='PackFaceInputs'),
            ],
        )
    )
    for sample in dataset:
        faces = sample['data_samples'].gt_instances
        assert sample['inputs'].shape == (3, 128, 128)
        assert len(faces.bboxes) == len(faces.keypoints) == len(faces.keypoints_visible)


def test_a_head_and_its_box():
    head = Head(np.array([50.0, 40.0]), np.array([10.0, 20.0]), tilt=30)
    angles = np.linspace(0, 2 * np.pi, 10000)
    rim = head.points(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    expected = np.concatenate([rim.min(axis=0), rim.max(axis=0)])
    np.testing.assert_allclose(head.box(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (dict(train=0), '--train: 0'),
        (dict(val=-1), '--val: -1'),
        (dict(size=10), '--size: 10'),
        (dict(seed=-1), '--seed: -1'),
    ],
)
def test_refuses_numbers_out_of_range(tmp_path, options, says):
    with pytest.raises(InputError, match=says):
        make_toy_wider(tmp_path / 'x', **options)
    assert not (tmp_path / 'x').exists()


def test_does_not_write_over_a_set_unless_asked(tmp_path):
    make_toy_wider(tmp_path, train=3, val=1, size=64)
    with pytest.raises(InputError, match='exists already'):
        make_toy_wider(tmp_path, train=1, val=1, size=64)
    make_toy_wider(tmp_path, train=1, val=1, size=64, overwrite=True)
    assert len(list(tmp_path.rglob('WIDER_train/**/*.jpg'))) == 1
