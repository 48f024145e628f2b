"""The three annotation formats: read to the right numbers, written back the same."""

from __future__ import annotations

import numpy as np
import pytest

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face.annotations import (
    FaceAnnotations,
    read_annotations,
    write_annotations,
)

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
5 6 0 8 0 0 0 0 0 0\x20
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
BOXES = [[449, 330, 571, 479], [78, 221, 85, 229], [1, 2, 4, 6]]
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
    assert found.lines.tolist() == [1, 5, 8]
    assert found.boxes().tolist() == [[276, 114, 336, 218], [404, 120, 458, 202], [5, 6, 5, 14]]
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
    assert found.lines.tolist() == [1, 4, 5]
    assert found.boxes().tolist() == BOXES
    assert not found.invalid().any()
    marks, annotated = found.landmarks()
    assert annotated.tolist() == [[True] * 5, [False] * 5, [False] * 5]
    numbers = np.array(MARKS.split(), dtype=float).reshape(5, 3)
    assert marks[0].tolist() == numbers[:, :2].tolist()
    assert (marks[1:] == -1).all()
    if fmt == 'labelv2':
        assert found.sizes.tolist() == [[1024, 1385], [10, 20], [30, 40]]


@pytest.mark.parametrize('text', ['# a/b.jpg\n1 2 3 4\n', '# a/b.jpg 9 9\n1 2 4 6\n'])
def test_validation_labels_have_boxes_alone(read, text):
    found = read(text)
    assert found.boxes().tolist() == [[1, 2, 4, 6]]
    assert not found.landmarks()[1].any()


@pytest.mark.parametrize('text', [OFFICIAL, LABEL, LABEL_V2])
def test_line_ends_blank_lines_and_byte_order_mark_do_not_matter(read, text):
    expected = read(text)
    texts = [
        text.replace('\n', '\r\n'),
        text.replace('\n', '\n\n'),
        text.rstrip('\n'),
        '\ufeff' + text,
    ]
    for other in texts:
        found = read(other)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.starts, expected.starts)


def test_an_image_without_faces_may_lack_its_line_of_zeros(read):
    found = read(OFFICIAL.replace('0 0 0 0 0 0 0 0 0 0 \n', '', 1))
    assert found.names == NAMES
    assert found.starts.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize('text', [OFFICIAL, LABEL, LABEL_V2], ids=['bbx_gt', 'label', 'labelv2'])
def test_written_back_to_the_byte(read, text, tmp_path):
    write_annotations(tmp_path / 'again.txt', read(text))
    assert (tmp_path / 'again.txt').read_text() == text


@pytest.mark.parametrize('fmt', ['bbx_gt', 'label', 'labelv2'])
def test_generated_files_are_read_to_the_same_numbers(fmt, tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, 300)
    rows = np.round(
        rng.random((counts.sum(), {'bbx_gt': 10, 'label': 20, 'labelv2': 19}[fmt])) * 300, 3
    )
    if fmt == 'bbx_gt':
        rows = np.floor(rows)
    if fmt == 'labelv2':
        rows[:, 2:4] += rows[:, :2]
    made = FaceAnnotations(
        fmt,
        [f'{n % 7}--Event/n{n}.jpg' for n in range(300)],
        np.cumsum([0, *counts]),
        rows,
        np.zeros(300),
        rng.integers(1, 2000, (300, 2)) if fmt == 'labelv2' else None,
    )
    write_annotations(tmp_path / 'x.txt', made)
    found = read_annotations(tmp_path / 'x.txt')
    assert (found.format, found.names) == (fmt, made.names)
    np.testing.assert_array_equal(found.rows, made.rows)
    np.testing.assert_array_equal(found.starts, made.starts)
    if fmt == 'labelv2':
        np.testing.assert_array_equal(found.sizes, made.sizes)


def test_real_samples(data_root, tmp_path):
    label = data_root / 'wider_eval' / 'label_sample.txt'
    found = read_annotations(label)
    assert (found.format, len(found.names), len(found.rows)) == ('label', 3, 7)
    assert found.boxes()[0].tolist() == [449, 330, 571, 479]
    assert found.landmarks()[1].all(axis=1).tolist() == [True, True, False, True, True, True, True]
    assert found.rows[-1, -1] == 0.41
    write_annotations(tmp_path / 'label.txt', found)
    assert (tmp_path / 'label.txt').read_text().split() == label.read_text().split()

    official = data_root / 'wider_mini' / 'wider_face_split' / 'wider_face_val_bbx_gt.txt'
    found = read_annotations(official)
    assert (found.format, len(found.names), len(found.rows)) == ('bbx_gt', 12, 67)
    assert found.boxes()[0].tolist() == [276, 114, 336, 218]
    write_annotations(tmp_path / 'bbx_gt.txt', found)
    assert (tmp_path / 'bbx_gt.txt').read_bytes() == official.read_bytes()


@pytest.mark.parametrize(
    ('text', 'line', 'says'),
    [
        (OFFICIAL.replace('jpg\n2', 'jpg\n3'), 2, 'announces 3 faces, 2 follow'),
        (OFFICIAL.replace('jpg\n2', 'jpg\n1'), 4, 'one face more than'),
        (OFFICIAL.replace('jpg\n1', 'jpg\n2'), 9, 'announces 2 faces, 1 follow'),
        (OFFICIAL.replace('jpg\n2', 'jpg\ntwo'), 2, '"two" after image "0--A/p1.jpg"'),
        (OFFICIAL.replace('jpg\n2', 'jpg\n-2'), 2, '"-2" after image'),
        (OFFICIAL.replace('jpg\n2\n', 'jpg\n'), 2, 'after image "0--A/p1.jpg"'),
        (OFFICIAL.replace('jpg\n2', 'jpg\n' + '9' * 5000), 2, 'after image'),
        (
            OFFICIAL.replace('0 0 0 0 0 0 0 0 0 0 \n1', '1 0 0 0 0 0 0 0 0 0 \n1'),
            7,
            'one face more',
        ),
        (OFFICIAL.replace('404 120 54', '404 120'), 4, '9 columns in "404 120 82'),
        (OFFICIAL.replace('404 120', '404 nan'), 4, '"nan" in'),
        (OFFICIAL.replace('404 120', '404 x'), 4, '"x" in'),
        (OFFICIAL.replace('54 82', '54 -82'), 4, 'a box of negative size in "404 120 54 -82'),
        (LABEL.replace('78 221 7', '78 221'), 3, '19 columns'),
        (LABEL.replace('78 221 7', '78 221 -7'), 3, 'a box of negative size'),
        (LABEL.replace('78 221 7', '78 inf 7'), 3, '"inf" in'),
        (LABEL_V2.replace('78 221 85', '78 221 77'), 3, 'a box of negative size'),
        (LABEL_V2.replace('empty.jpg 10 20', 'empty.jpg 10'), 4, '"# 0--A/empty.jpg 10"'),
        (LABEL.replace('# 1--B/p2.jpg', '#'), 5, '"#"'),
        (LABEL.encode().replace(b'# 1--B/p2.jpg', b'# 1--B/p\xff.jpg'), 5, 'not UTF-8'),
    ],
)
def test_malformed_files_are_told_by_line(read, text, line, says):
    assert text not in (OFFICIAL, LABEL, LABEL_V2)
    with pytest.raises(InputError) as caught:
        read(text)
    message = str(caught.value)
    assert f'labels.txt:{line}: ' in message
    assert says in message
    assert 'accepted' in message
    assert '\n' not in message


@pytest.mark.parametrize(
    ('text', 'fmt', 'says'),
    [
        (LABEL, 'bbx_gt', r'labels\.txt:2'),
        (OFFICIAL, 'label', r'labels\.txt:1: .* before any image'),
        (LABEL, 'labelv2', r'labels\.txt:1: "# 0--A/p1\.jpg"; accepted: "# name width height"'),
        (OFFICIAL, 'xml', "ann_format: 'xml'; accepted: 'auto', 'bbx_gt'"),
        ('', 'auto', 'nothing in the file'),
        ('\n\n', 'auto', 'nothing in the file'),
        ('0--A/p1.jpg\n', 'auto', r'"" after image "0--A/p1\.jpg"'),
    ],
)
def test_the_wrong_format_is_told(read, text, fmt, says):
    with pytest.raises(InputError, match=says):
        read(text, fmt)


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r'absent\.txt: No such file'):
        read_annotations(tmp_path / 'absent.txt')
