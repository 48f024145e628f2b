"""The drawn data sets: a seed gives the same files, annotated as drawn."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from demo.toy_coco import CLASSES, make_toy_coco
from demo.toy_wider import make_toy_wider
from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face import read_ground_truth, score_wider_face
from polynl_mmdet.wider_face.annotations import read_annotations


@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    """Path: 6 + 60 drawn images of faces."""
    out = tmp_path_factory.mktemp('toy') / 'wider'
    make_toy_wider(out, train=6, val=60, seed=0, size=128)
    return out


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_a_seed_gives_the_same_images(tmp_path, faces):
    make_toy_coco(tmp_path, train=3, val=2, seed=0, size=96)
    assert digest(tmp_path / 'annotations/instances_train.json') == 'a2353764d93affdc'
    image = cv2.imread(str(tmp_path / 'train/000000.jpg'))
    assert image.mean() == pytest.approx(109.25, abs=0.5)
    assert digest(faces / 'retinaface_gt_v1.1/train/label.txt') == 'b29ce8ed2f563cc9'
    image = cv2.imread(str(faces / 'WIDER_train/images/1--Group/1_Group_Group_1_1.jpg'))
    assert image.mean() == pytest.approx(98.89, abs=0.5)


def test_shapes_are_annotated_as_drawn(tmp_path):
    make_toy_coco(tmp_path, train=20, val=1, size=128)
    coco = COCO(str(tmp_path / 'annotations/instances_train.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert {a['category_id'] for a in coco.dataset['annotations']} == {1, 2, 3, 4}
    for entry in coco.dataset['images']:
        annotations = coco.imgToAnns[entry['id']]
        masks = [coco.annToMask(a) for a in annotations]
        assert np.sum(masks, axis=0).max() == 1, 'visible parts do not overlap'
        for annotation, mask in zip(annotations, masks):
            ys, xs = np.nonzero(mask)
            assert annotation['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation['area'] == mask.sum()


def test_faces_are_annotated_as_drawn(faces):
    """Both files agree, eyes are dark where the landmarks say, and a perfect detector scores 1."""
    boxes = read_annotations(faces / 'wider_face_split/wider_face_val_bbx_gt.txt')
    label = read_annotations(faces / 'retinaface_gt_v1.1/val/label.txt')
    assert label.names == boxes.names
    np.testing.assert_array_equal(label.boxes(), boxes.boxes()[~boxes.invalid()])
    assert set(boxes.rows[:, 8]) == {0, 1, 2}
    marks, annotated = label.landmarks()
    darker = []
    for image, name in enumerate(label.names):
        pixels = cv2.imread(str(faces / 'WIDER_val/images' / name), cv2.IMREAD_GRAYSCALE)
        for face in range(label.starts[image], label.starts[image + 1]):
            if annotated[face].all() and label.rows[face, 3] > 30:
                eye, mouth = marks[face, 0], marks[face, 3]
                (x, y), (u, v) = eye.astype(int), ((eye + mouth) / 2).astype(int)
                darker.append(pixels[y, x] < pixels[v, u])
    assert len(darker) > 20
    assert np.mean(darker) > 0.75, 'some eyes are covered'
    truth = read_ground_truth(faces / 'eval_tools/ground_truth')
    predictions = {
        name: np.c_[rows, np.linspace(0.5, 1, len(rows))]
        for name, rows in zip(truth.images, np.split(truth.boxes, truth.starts[1:-1]))
    }
    assert score_wider_face(predictions, truth).ap == dict(easy=1.0, medium=1.0, hard=1.0)


def test_drawn_files_alone_are_replaced(tmp_path):
    (tmp_path / 'annotations').mkdir()
    with pytest.raises(InputError, match='folder with other files'):
        make_toy_coco(tmp_path, train=1, val=1)
    for train in (2, 1):
        make_toy_wider(tmp_path / 'new', train=train, val=1, size=64)
        assert len(list(tmp_path.glob('new/WIDER_train/images/*/*.jpg'))) == train
