"""The three annotation formats: read to the right numbers, written back the same."""

from __future__ import annotations

import re

import numpy as np
import pytest

from demo.wider_files import write_annotations
from polynl_mmdet.wider_face.annotations import read_annotations

# Official rows end in a space.
OFFICIAL = """0--A/p1.jpg
2
276 114 60 104 0 0 1 0 0 0\x20
404 120 54 82 2 1 0 1 2 1\x20
0--A/empty.jpg
0
0 0 0 0 0 0 0 0 0 0\x20
1--B/p2.jpg
1
5 6 7 8 0 0 0 0 0 0\x20
"""
MARKS = (
    '488.906 373.643 0.0 542.089 376.442 1.0 515.031 412.83 0.0 485.174 425.893 0.0 1.0 -2.5 0.0'
)
NO_MARKS = ' '.join(['-1.0'] * 15)
LABEL = f"""# 0--A/p1.jpg
449 330 122 149 {MARKS} 0.82
78 221 7 8 {NO_MARKS} 0.2
# 0--A/empty.jpg
# 1--B/p2.jpg
1 2 3 4 {NO_MARKS} 0.5
"""
LABEL_V2 = f"""# 0--A/p1.jpg 1024 1385
449 330 571 479 {MARKS}
78 221 85 229 {NO_MARKS}
# 0--A/empty.jpg 10 20
# 1--B/p2.jpg 30 40
1 2 4 6 {NO_MARKS}
"""
NAMES = ['0--A/p1.jpg', '0--A/empty.jpg', '1--B/p2.jpg']


@pytest.fixture
def read(tmp_path):
    """Write a text to a file and read it."""

    def write_and_read(text, fmt='auto'):
        path = tmp_path / 'labels.txt'
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_annotations(path, fmt)

    return write_and_read


def test_official(read):
    found = read(OFFICIAL)
    assert (found.format, found.names, found.sizes) == ('bbx_gt', NAMES, None)
    assert found.starts.tolist() == [0, 2, 2, 3]
    assert found.boxes().tolist() == [[276, 114, 336, 218], [404, 120, 458, 202], [5, 6, 12, 14]]
    assert found.invalid().tolist() == [False, True, False]
    assert found.rows[1].tolist() == [404, 120, 54, 82, 2, 1, 0, 1, 2, 1]
    marks, annotated = found.landmarks()
    assert marks.shape == (3, 5, 2)
    assert not annotated.any()


@pytest.mark.parametrize(('text', 'fmt'), [(LABEL, 'label'), (LABEL_V2, 'labelv2')])
def test_labels(read, text, fmt):
    found = read(text)
    assert (found.format, found.names) == (fmt, NAMES)
    assert found.starts.tolist() == [0, 2, 2, 3]
    assert found.boxes().tolist() == [[449, 330, 571, 479], [78, 221, 85, 229], [1, 2, 4, 6]]
    assert not found.invalid().any()
    marks, annotated = found.landmarks()
    assert annotated.tolist() == [[True] * 5, [False] * 5, [False] * 5]
    numbers = np.array(MARKS.split(), dtype=float).reshape(5, 3)
    assert marks[0].tolist() == numbers[:, :2].tolist()
    assert (marks[1:] == -1).all()
    if fmt == 'labelv2':
        assert found.sizes.tolist() == [[1024, 1385], [10, 20], [30, 40]]


@pytest.mark.parametrize('text', [OFFICIAL, LABEL, LABEL_V2], ids=['bbx_gt', 'label', 'labelv2'])
def test_written_and_read_again(read, text, tmp_path):
    """To the byte; line ends, blank lines, a byte order mark, a dummy row do not matter."""
    expected = read(text)
    write_annotations(tmp_path / 'again.txt', expected)
    assert (tmp_path / 'again.txt').read_text() == text
    for other in (
        text.replace('\n', '\r\n'),
        text.replace('\n', '\n\n'),
        '\ufeff' + text.rstrip('\n'),
        text.replace('0 0 0 0 0 0 0 0 0 0 \n', '', 1),
    ):
        found = read(other)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.starts, expected.starts)


def test_the_published_label_file(data_root):
    path = data_root / 'wider_eval/label_val.txt'
    found = read_annotations(path)
    assert (found.format, len(found.names)) == ('label', 3226)
    assert len(found.rows) + found.skipped == 39708
    lines = path.read_text().splitlines()
    odd = [
        number
        for number, line in enumerate(lines, 1)
        if line[0] != '#' and min(map(float, line.split()[2:])) <= 0
    ]
    assert found.skipped == len(odd)
    assert f'{path}:{odd[0]}: the first of {len(odd)} boxes' in found.notes[0]
    assert not found.landmarks()[1].any()


@pytest.mark.parametrize('name', ['masks_train', 'masks_val', 'wider_val'])
def test_real_official_files(data_root, name, tmp_path):
    path = data_root / 'real_study/face/wider_face_split' / f'{name}_bbx_gt.txt'
    found = read_annotations(path)
    lines = path.read_text().splitlines()
    assert found.names == [line for line in lines if '/' in line]
    assert len(found.rows) == sum(len(line.split()) == 10 for line in lines)
    assert (found.skipped, found.notes) == (0, [])
    write_annotations(tmp_path / 'again.txt', found)
    assert (tmp_path / 'again.txt').read_text().split() == path.read_text().split()


@pytest.mark.parametrize(
    ('text', 'kept'),
    [
        ('a/b.jpg\n3\n1 2 3 4 0 0 0 0 0 0\n0 5 -11 5 0 0 0 0 0 0\n1050 142 0 50 0 0 0 0 0 0\n', 1),
        ('a/b.jpg\n1\n0 0 0 0 0 0 0 0 0 0\n', 0),
        (f'# a/b.jpg\n1050 142 -26 50 {NO_MARKS} -1.0\n1 2 3 0 {NO_MARKS} 1\n', 0),
        (f'# a/b.jpg 20 20\n5 5 4 9 {NO_MARKS}\n5 5 5 9 {NO_MARKS}\n1 2 3 4 {NO_MARKS}\n', 1),
    ],
)
def test_boxes_without_area_are_skipped_and_noted(read, text, kept):
    found = read(text)
    rows = [line for line in text.splitlines() if len(line.split()) >= 4 and line[0] != '#']
    assert (len(found.rows), found.skipped) == (kept, len(rows) - kept)
    assert found.starts.tolist() == [0, kept]
    (note,) = found.notes
    assert re.search(rf'labels\.txt:\d+: the first of {found.skipped} boxes', note)


@pytest.mark.parametrize('flag', ['0', '1', '-1', '2'])
def test_landmarks_that_are_not_annotated(read, flag):
    """Coordinates of -1 whatever the flag, and good ones with a flag of -1."""
    found = read(f'# a.jpg\n76 68 53 43 {f"-1 -1 {flag} " * 5}0\n1 2 3 4 {"2 3 0 " * 4}-7 3 1 0\n')
    marks, annotated = found.landmarks()
    assert annotated.tolist() == [[False] * 5, [True] * 4 + [False]]
    assert (marks[~annotated] == -1).all()
    (note,) = found.notes
    faces, line = (1, 3) if flag == '-1' else (2, 2)
    assert f'labels.txt:{line}: the first of {faces} faces with landmarks not used' in note
    found = read(f'# a.jpg\n1 2 3 4 {"2 3 -1 " * 5}0\n1 2 3 4 {"2 3 0 " * 5}0\n')
    assert found.landmarks()[1].tolist() == [[False] * 5, [True] * 5]
    assert 'labels.txt:2: the first of 1 faces with landmarks not used' in found.notes[0]


@pytest.mark.parametrize('first', ['train', 'val'])
def test_train_and_val_files_put_together(read, first):
    val = '# 1--B/v.jpg\n5 6 7 8\n9 9 2 2\n'
    found = read(LABEL + val if first == 'train' else val + LABEL)
    assert sorted(found.names) == sorted([*NAMES, '1--B/v.jpg'])
    annotated = found.landmarks()[1]
    assert annotated.sum() == 5
    order = [found.names.index(name) for name in ('0--A/p1.jpg', '1--B/v.jpg')]
    assert annotated[found.starts[order[0]]].all()
    assert found.boxes()[found.starts[order[1]]].tolist() == [5, 6, 12, 14]


@pytest.mark.parametrize('count', [0, 3, 900])
def test_a_wrong_count_is_noted_and_the_rows_are_read(read, count):
    """Rows of boxes alone, and of more columns, are read too."""
    found = read('a.jpg\n2\n1 2 3 4\n5 6 7 8 0 0 0 1 0 0 9 9\nb.jpg\n0\n0 0 0 0\n')
    assert found.boxes().tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]
    assert (found.invalid().tolist(), found.notes) == ([False, True], [])
    found = read(OFFICIAL.replace('jpg\n2', f'jpg\n{count}', 1))
    assert found.starts.tolist() == [0, 2, 2, 3]
    (note,) = found.notes
    assert 'labels.txt:2: the first of 1 images whose count differs' in note


@pytest.mark.parametrize('points', [1, 4, 98])
@pytest.mark.parametrize('score', ['', ' 0.5'])
def test_any_number_of_landmarks(read, points, score):
    marks = ' '.join(f'{n} {n + 1} 0' for n in range(points))
    found = read(f'# a.jpg\n1 2 3 4 {marks}{score}\n1 2 3 4\n')
    got, annotated = found.landmarks(points)
    assert got[0].tolist() == [[n, n + 1] for n in range(points)]
    assert annotated.tolist() == [[True] * points, [False] * points]
    with pytest.raises(ValueError, match=f'got {points} landmarks per face, expected 5'):
        found.landmarks()


@pytest.mark.parametrize(
    ('text', 'line', 'words'),
    [
        (OFFICIAL.replace('jpg\n2', 'jpg\ntwo'), 1, 'got "0--A/p1.jpg", expected'),
        (OFFICIAL + '1--B/p3.jpg\n', 11, 'got "1--B/p3.jpg"'),
        (OFFICIAL.replace('404 120 54', '404 120'), 4, '9 columns in "404 120 82'),
        (OFFICIAL.replace('404 120', '404 nan'), 4, 'got "404 nan'),
        (LABEL.replace('78 221 7 8', '78 221'), 3, '18 columns'),
        (LABEL.replace('-1.0 -1.0 -1.0 0.2', '0.2'), 3, 'expected 20 as above'),
        (LABEL_V2.replace('empty.jpg 10 20', 'empty.jpg 10'), 4, 'got "# 0--A/empty.jpg 10"'),
        (LABEL.replace('# 1--B/p2.jpg', '#'), 5, 'got "#"'),
        (LABEL.encode().replace(b'# 1--B/p2.jpg', b'# 1--B/p\xff.jpg'), 5, 'not UTF-8'),
    ],
)
def test_malformed_files_are_reported_by_line(read, text, line, words):
    with pytest.raises(ValueError, match=rf'labels\.txt:{line}: ') as caught:
        read(text)
    assert words in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'fmt', 'words'),
    [
        (LABEL, 'bbx_gt', r'labels\.txt:1'),
        (OFFICIAL, 'label', r'labels\.txt:1: got "0--A/p1\.jpg", expected "# name"'),
        (OFFICIAL, 'xml', "ann_format: got 'xml', expected 'auto', 'bbx_gt'"),
        ('', 'auto', 'the file is empty'),
    ],
)
def test_the_wrong_format(read, text, fmt, words):
    with pytest.raises(ValueError, match=words):
        read(text, fmt)
