"""tools/check_wider_face.py: what is there, what is broken, what is missing."""

from __future__ import annotations

import pytest

from demo.toy_wider import make_toy_wider


@pytest.fixture
def toy(tmp_path):
    """A small drawn set in the official layout."""
    make_toy_wider(tmp_path / 'wider', train=7, val=5, size=64)
    return tmp_path / 'wider'


def test_counts_what_is_there(run_tool, toy):
    """In nested folders and with upper-case suffixes too, as many unzip tools leave them."""
    lines = (
        f'WIDER_train/images\n{"":<10} 7 images of 12,880',
        '5 images of 3,226',
        'get WIDER_test.zip from http://shuoyang1213.me/WIDERFACE/',
        'partial    eval_tools/ground_truth',
        'faces of 159,424',
        'faces of hard of 31,958',
        'faces with landmarks',
    )
    done = run_tool('check_wider_face.py', toy)
    assert done.returncode == 0, done.stdout
    assert all(line in done.stdout for line in lines), done.stdout
    val = toy / 'WIDER_val'
    (val / 'WIDER_val').mkdir()
    (val / 'images').rename(val / 'WIDER_val' / 'images')
    image = next((toy / 'WIDER_train' / 'images').rglob('*.jpg'))
    image.rename(image.with_suffix('.JPG'))
    done = run_tool('check_wider_face.py', toy)
    assert done.returncode == 1
    assert f'found in {val}/WIDER_val/images: move it to {val}/images' in done.stdout
    assert all(line in done.stdout for line in lines), done.stdout
    assert 'MISSING' not in done.stdout


def test_names_what_is_broken(run_tool, toy):
    images = sorted((toy / 'WIDER_train' / 'images').rglob('*.jpg'))
    images[0].write_bytes(images[0].read_bytes()[:1500])
    images[1].write_bytes(b'nothing')
    images[2].unlink()
    split = toy / 'wider_face_split' / 'wider_face_val_bbx_gt.txt'
    split.write_text(split.read_text().replace('.jpg\n', '.jpg\nx', 1))
    done = run_tool('check_wider_face.py', toy)
    assert done.returncode == 1
    for line in (
        'BROKEN     WIDER_train/images',
        f'{images[0].relative_to(toy)}: ',
        'truncated',
        f'{images[1].relative_to(toy)}: not an image',
        f'image {images[2].relative_to(toy / "WIDER_train/images")} is missing',
        f'{split}:1: ',
    ):
        assert line in done.stdout
    assert 'truncated' not in run_tool('check_wider_face.py', toy, '--no-decode').stdout


def test_where_to_get_what_is_missing(run_tool, tmp_path):
    done = run_tool('check_wider_face.py', tmp_path)
    assert done.returncode == 1
    for part in ('WIDER_train.zip', 'wider_face_split.zip', 'retinaface_gt_v1.1', 'eval_tools.zip'):
        assert part in done.stdout
    done = run_tool('check_wider_face.py', tmp_path / 'absent')
    assert (done.returncode, done.stdout) == (2, f'error: {tmp_path}/absent: no such folder\n')
