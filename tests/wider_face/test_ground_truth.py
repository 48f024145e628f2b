"""The official ``.mat`` files: read, written, and refused when damaged."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from demo.wider_files import write_ground_truth
from polynl_mmdet.wider_face import WiderFaceGroundTruth, read_ground_truth
from polynl_mmdet.wider_face.ground_truth import SETTINGS

NAMES = ['face', *SETTINGS]


@pytest.fixture
def official(data_root, tmp_path):
    """A copy of the official files that may be damaged."""
    for name in NAMES:
        shutil.copyfile(
            data_root / 'wider_eval' / 'ground_truth' / f'wider_{name}_val.mat',
            tmp_path / f'wider_{name}_val.mat',
        )
    return tmp_path


def small():
    """Three images of two events; the second has no face."""
    return WiderFaceGroundTruth(
        ['0--A/p1', '0--A/p2', '1--B/p3'],
        np.array([0, 2, 2, 3]),
        np.array([[1, 2, 30, 40], [5, 6, 7, 8], [9, 9, 20, 20]], dtype=float),
        {
            'easy': np.array([True, False, False]),
            'medium': np.array([True, False, True]),
            'hard': np.array([True, True, True]),
        },
    )


def test_official_files_agree_with_a_reading_in_loops(official):
    truth = read_ground_truth(official)
    assert len(truth.images) == len(truth.index) == len(truth.starts) - 1 == 3226
    assert len(truth.boxes) == 39708
    # The numbers of faces of the three settings that the benchmark states.
    totals = {name: int(counted.sum()) for name, counted in truth.counted.items()}
    assert totals == {'easy': 7211, 'medium': 13319, 'hard': 31958}
    face = loadmat(official / 'wider_face_val.mat')
    hard = loadmat(official / 'wider_hard_val.mat')
    image = 0
    for event in range(61):
        name = face['event_list'][event, 0][0]
        for number in range(len(face['file_list'][event, 0])):
            rows = slice(truth.starts[image], truth.starts[image + 1])
            file = face['file_list'][event, 0][number, 0][0]
            assert truth.images[image] == f'{name}/{file}'
            boxes = face['face_bbx_list'][event, 0][number, 0]
            assert truth.boxes[rows].tolist() == boxes.tolist()
            counted = hard['gt_list'][event, 0][number, 0].ravel().tolist()
            assert (np.flatnonzero(truth.counted['hard'][rows]) + 1).tolist() == sorted(counted)
            image += 1
    assert image == 3226


def test_written_files_read_back(tmp_path):
    truth = small()
    write_ground_truth(tmp_path, truth)
    found = read_ground_truth(tmp_path)
    assert found.images == truth.images
    np.testing.assert_array_equal(found.starts, truth.starts)
    np.testing.assert_array_equal(found.boxes, truth.boxes)
    np.testing.assert_equal(found.counted, truth.counted)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('part', [0, 50, 200, 0.3, None])
def test_truncated_and_absent_files_are_named(official, name, part):
    path = official / f'wider_{name}_val.mat'
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part) if part == 0.3 else part])
    if part is None:
        path.unlink()
    with pytest.raises(ValueError, match=f'wider_{name}_val.mat') as caught:
        read_ground_truth(official)
    assert '\n' not in str(caught.value)


def test_other_mat_files_are_errors(tmp_path):
    write_ground_truth(tmp_path, small())
    path = tmp_path / 'wider_easy_val.mat'
    lists = loadmat(path)['gt_list']
    fewer, beyond = lists[:1], lists.copy()
    beyond[0, 0] = np.array([[np.array([[3]])], [lists[0, 0][1, 0]]], dtype=object)
    for content, words in (
        ({'x': 1}, 'no list "gt_list"'),
        ({'gt_list': fewer}, '2 images, expected the 3'),
        ({'gt_list': beyond}, 'counts a face that it does not have'),
    ):
        savemat(path, content)
        with pytest.raises(ValueError, match=words):
            read_ground_truth(tmp_path)
