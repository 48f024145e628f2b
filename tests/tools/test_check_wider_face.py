"""tools/check_wider_face.py: what is there, what is broken, what is missing."""

from __future__ import annotations

import shutil

import pytest

from demo.toy_wider import make_toy_wider


@pytest.fixture
def toy(tmp_path):
    """A small drawn set in the official layout."""
    make_toy_wider(tmp_path / 'wider', train=7, val=5, size=64)
    return tmp_path / 'wider'


def test_counts_what_is_there(run_tool, toy):
    done = run_tool('check_wider_face.py', toy)
    assert done.returncode == 0, done.stdout
    for line in (
        'partial    WIDER_train/images',
        '7 images of 12,880',
        'partial    WIDER_val/images',
        '5 images of 3,226',
        'not there  WIDER_test/images',
        'get WIDER_test.zip from http://shuoyang1213.me/WIDERFACE/',
        'partial    eval_tools/ground_truth',
        'partial    wider_face_split/wider_face_train_bbx_gt.txt',
        'faces of 159,424',
        'faces of hard of 31,958',
        'faces with landmarks',
    ):
        assert line in done.stdout


def test_names_what_is_broken(run_tool, toy):
    images = sorted((toy / 'WIDER_train' / 'images').rglob('*.jpg'))
    images[0].write_bytes(images[0].read_bytes()[:1500])
    images[1].write_bytes(b'nothing')
    images[2].unlink()
    split = toy / 'wider_face_split' / 'wider_face_val_bbx_gt.txt'
    split.write_text(split.read_text().replace('.jpg\n', '.jpg\nx', 1))
    done = run_tool('check_wider_face.py', toy)
    assert done.returncode == 1
    assert 'BROKEN     WIDER_train/images' in done.stdout
    assert f'{images[0].relative_to(toy)}: ' in done.stdout
    assert 'truncated' in done.stdout
    assert f'{images[1].relative_to(toy)}: not an image' in done.stdout
    name = images[2].relative_to(toy / 'WIDER_train' / 'images')
    assert f'image {name} is missing' in done.stdout
    assert f'{split}:1: ' in done.stdout
    quick = run_tool('check_wider_face.py', toy, '--no-decode')
    assert 'truncated' not in quick.stdout


def test_nested_folders_and_upper_case_suffixes(run_tool, toy):
    """As many unzip tools, and Windows, leave them."""
    val = toy / 'WIDER_val'
    (val / 'WIDER_val').mkdir()
    (val / 'images').rename(val / 'WIDER_val' / 'images')
    image = next((toy / 'WIDER_train' / 'images').rglob('*.jpg'))
    image.rename(image.with_suffix('.JPG'))
    done = run_tool('check_wider_face.py', toy)
    assert done.returncode == 1
    assert f'found in {val}/WIDER_val/images: move it to {val}/images' in done.stdout
    assert '5 images of 3,226' in done.stdout
    assert '7 images of 12,880' in done.stdout
    assert 'MISSING' not in done.stdout


def test_the_published_file(run_tool, data_root, tmp_path):
    folder = tmp_path / 'retinaface_gt_v1.1' / 'val'
    folder.mkdir(parents=True)
    shutil.copy(data_root / 'wider_eval/label_val.txt', folder / 'label.txt')
    done = run_tool('check_wider_face.py', tmp_path)
    assert 'complete   retinaface_gt_v1.1/val/label.txt' in done.stdout
    assert '39,708 faces' in done.stdout
    assert 'label.txt:1193: the first of 11 boxes of zero or negative size' in done.stdout
    # Images that are not there are compared all the same, where there is a folder for them.
    (tmp_path / 'WIDER_val' / 'images').mkdir(parents=True)
    done = run_tool('check_wider_face.py', tmp_path)
    assert 'and 3206 more' in done.stdout


def test_where_to_get_what_is_missing(run_tool, tmp_path):
    done = run_tool('check_wider_face.py', tmp_path)
    assert done.returncode == 1
    assert done.stdout.count('MISSING') == 6
    for part in ('WIDER_train.zip', 'wider_face_split.zip', 'retinaface_gt_v1.1', 'eval_tools.zip'):
        assert part in done.stdout
    assert 'Decoding' not in done.stdout


def test_no_folder(run_tool, tmp_path):
    done = run_tool('check_wider_face.py', tmp_path / 'absent')
    assert (done.returncode, done.stdout) == (2, f'error: {tmp_path}/absent: no such folder\n')
