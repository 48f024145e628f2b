"""Prediction files: what is read, what is written, and how each mistake is told."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from polynl_mmdet.wider_face import read_predictions, write_predictions

GOOD = 'p1\n2\n1 2 30 40 0.9 \n5.5 6 7 8 1e-3\n'
ROWS = [[1, 2, 30, 40, 0.9], [5.5, 6, 7, 8, 1e-3]]


def put(folder, files):
    """Write files, text by relative name."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def zipped(path, files):
    """Write files into a zip."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize('top', ['', 'a/b/'])
@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_reads_folder_and_zip(tmp_path, kind, top):
    files = {
        f'{top}0--A/p1.txt': GOOD,
        f'{top}0--A/p2.txt': GOOD.replace('\n', '\r\n'),
        f'{top}1--B/p3.txt': 'p3\n0\n',
        f'{top}1--B/p4.txt': 'p4\n0',
        f'{top}1--B/p5.txt': 'x/y/p5.jpg\n1\n\n1 2 3 4 1\n\n\n',
    }
    source = put(tmp_path / 'f', files) if kind == 'folder' else zipped(tmp_path / 'z.zip', files)
    found, unmatched = read_predictions(source)
    assert unmatched == []
    assert {name: rows.tolist() for name, rows in found.items()} == {
        '0--A/p1': ROWS,
        '0--A/p2': ROWS,
        '1--B/p3': [],
        '1--B/p4': [],
        '1--B/p5': [[1, 2, 3, 4, 1]],
    }
    assert all(rows.shape[1] == 5 and rows.dtype == np.float64 for rows in found.values())


def test_files_of_no_image_are_named_and_not_read(tmp_path):
    others = ['0--A/other.txt', '9--New/p1.txt', 'README.md', 'p1.txt']
    files = {'0--A/p1.txt': GOOD, **dict.fromkeys(others, 'nonsense')}
    macos = {'__MACOSX/pred/0--A/p1.txt': 'x', '__MACOSX/._pred': 'x'}
    for source in (put(tmp_path / 'f', files), zipped(tmp_path / 'z.zip', {**files, **macos})):
        found, unmatched = read_predictions(source, {'0--A/p1', '0--A/p2'})
        assert list(found) == ['0--A/p1']
        assert sorted(unmatched) == others


@pytest.mark.parametrize(
    ('text', 'rows', 'line', 'words'),
    [
        ('p1\n3\n1 2 3 4 1\n', [[1, 2, 3, 4, 1]], 2, 'files whose count differs'),
        ('p1\n0\n0 0 0 0 0\n', [[0, 0, 0, 0, 0]], 2, 'files whose count differs'),
        ('p1\n1\n1 2 3 4 1 7 8\n', [[1, 2, 3, 4, 1]], 3, 'rows with more than 5 columns'),
        ('p1\n2\n1 2 3 4 1\n1 2 -3 4 1\n', [[1, 2, 3, 4, 1], [1, 2, -3, 4, 1]], 4, 'negative'),
    ],
)
def test_odd_rows_are_read_as_by_the_usual_port_and_counted(tmp_path, text, rows, line, words):
    files = {'0--A/p0.txt': GOOD, '0--A/p1.txt': text, '0--A/p2.txt': GOOD, '0--A/p9.txt': text}
    with pytest.warns(UserWarning, match=words) as caught:
        found, _ = read_predictions(put(tmp_path, files))
    assert found['0--A/p1'].tolist() == rows
    (warning,) = caught
    assert f'0--A/p1.txt:{line}: the first of 2' in str(warning.message)


@pytest.mark.parametrize(
    ('text', 'line', 'words'),
    [
        ('p1\n1\n1 2 3 4\n', 3, '4 columns in "1 2 3 4"'),
        ('p1\n1\n1 2 three 4 1\n', 3, '"1 2 three 4 1"'),
        ('p1\n2\n1 2 3 4 1\n1 2 3 4 nan\n', 4, '"1 2 3 4 nan"'),
        ('1 2 3 4 1\n5 6 7 8 1\n', 2, 'got 5 numbers'),
        ('p1\ntwo\n1 2 3 4 1', 2, '"two", expected the number of detections'),
        ('', 2, 'got 0 numbers'),
        (b'p1\n1\n1 2 3 4 \xff\xfe\n', 3, r'\xff\xfe'),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, line, words):
    files = {'0--A/p0.txt': GOOD, '0--A/p1.txt': text, '0--A/p2.txt': GOOD}
    for source in (put(tmp_path / 'f', files), zipped(tmp_path / 'z.zip', files)):
        with pytest.raises(ValueError, match=f'p1.txt:{line}: got ') as caught:
            read_predictions(source)
        assert words in str(caught.value)
        assert '\n' not in str(caught.value)


def test_what_is_no_folder_or_zip_and_two_files_for_one_image(tmp_path):
    with pytest.raises(ValueError, match='no such folder or zip'):
        read_predictions(tmp_path / 'absent')
    whole = zipped(tmp_path / 'y.zip', {'0--A/p1.txt': GOOD * 50}).read_bytes()
    for content in (b'no zip', whole[: len(whole) // 2], whole[:50] + bytes(10) + whole[60:]):
        (tmp_path / 'y.zip').write_bytes(content)
        with pytest.raises(ValueError, match='not a whole zip'):
            read_predictions(tmp_path / 'y.zip')
    with pytest.raises(ValueError, match='a second file for 0--A/p1'):
        read_predictions(put(tmp_path / 'f', {'a/0--A/p1.txt': GOOD, 'b/0--A/p1.txt': GOOD}))


def test_written_files_read_back_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(40, 5))) * 10.0 ** rng.integers(-9, 4, (40, 5))
    rows[3:5, 4] = 0.25
    some = {'0--A/p1': rows, '0--A/p2': rows[:0], '1--B/p3': rows[:1].astype(np.float32)}
    write_predictions(tmp_path, some)
    found, _ = read_predictions(tmp_path)
    assert found.keys() == some.keys()
    for name, expected in some.items():
        order = np.argsort(-expected[:, 4], kind='stable')
        np.testing.assert_array_equal(found[name], expected[order].astype(float))


@pytest.mark.parametrize('name', ['../p1', '0--A/..', '/p1', 'a//b'])
def test_nothing_is_written_outside_of_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match='expected EVENT/NAME'):
        write_predictions(tmp_path, {name: np.zeros((0, 5))})
