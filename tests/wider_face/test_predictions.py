"""Prediction files: what is read, what is written, and how each mistake is told."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from polynl_mmdet.errors import InputError
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


@pytest.mark.parametrize('top', ['', 'predictions/', 'a/b/'])
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


def test_names_files_of_no_image_and_does_not_read_them(tmp_path):
    files = {
        '0--A/p1.txt': GOOD,
        '0--A/other.txt': 'nonsense',
        '9--New/p1.txt': 'nonsense',
        'README.md': 'nonsense',
        'p1.txt': 'nonsense',
    }
    for source in (put(tmp_path / 'f', files), zipped(tmp_path / 'z.zip', files)):
        found, unmatched = read_predictions(source, {'0--A/p1', '0--A/p2'})
        assert list(found) == ['0--A/p1']
        assert sorted(unmatched) == ['0--A/other.txt', '9--New/p1.txt', 'README.md', 'p1.txt']


def test_names_that_point_elsewhere_are_only_names(tmp_path):
    files = {'0--A/p1.txt': GOOD, '../../0--A/../p1.txt': 'bad', '/etc/passwd.txt': 'bad'}
    found, unmatched = read_predictions(zipped(tmp_path / 'z.zip', files), {'0--A/p1'})
    assert list(found) == ['0--A/p1']
    assert len(unmatched) == 2


@pytest.mark.parametrize(
    ('text', 'line', 'says'),
    [
        ('p1\n1\n1 2 3 4\n', 3, '4 columns in "1 2 3 4"'),
        ('p1\n2\n1 2 3 4 1\n1 2 3 4 1 7\n', 4, '6 columns in "1 2 3 4 1 7"'),
        ('p1\n2\n1 2 3 4\n1 2 3 4 1 7\n', 3, '4 columns'),
        ('p1\n1\n1 2 three 4 1\n', 3, '"three" in "1 2 three 4 1"'),
        ('p1\n2\n1 2 3 4 1\n1 2 3 4 nan\n', 4, '"nan" in'),
        ('p1\n2\n1 2 3 4 1\n1 inf 3 4 1\n', 4, '"inf" in'),
        ('p1\n1\n1 2 1e999 4 1\n', 3, '"1e999" in'),
        ('p1\n1\n1 2 3.4.5 4 1\n', 3, '"3.4.5" in'),
        ('p1\n2\n1 2 3 4 1\n1 2 -3 4 1\n', 4, 'a negative size in "1 2 -3 4 1"'),
        ('p1\n3\n1 2 3 4 1\n', 2, 'announces 3 detections, 1 follow'),
        ('p1\n1\n1 2 3 4 1\n5 6 7 8 1\n', 2, 'announces 1 detections, 2 follow'),
        ('p1\n0\n1 2 3 4 1\n', 2, 'announces 0 detections, 1 follow'),
        ('1 2 3 4 1\n5 6 7 8 1\n', 2, '"5 6 7 8 1"'),
        ('p1\n-1\n', 2, '"-1"'),
        ('p1\n' + '9' * 5000 + '\n', 2, '"999'),
        ('p1\n', 2, '""'),
        ('', 2, '""'),
        (b'p1\n1\n1 2 3 4 \xff\xfe\n', 3, r'\xff\xfe'),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, line, says):
    files = {'0--A/p0.txt': GOOD, '0--A/p1.txt': text, '0--A/p2.txt': GOOD}
    for source in (put(tmp_path / 'f', files), zipped(tmp_path / 'z.zip', files)):
        with pytest.raises(InputError) as caught:
            read_predictions(source)
        message = str(caught.value)
        assert f'{source}/0--A/p1.txt:{line}: ' in message
        assert says in message
        assert 'accepted' in message
        assert '\n' not in message
        assert len(message) < len(str(source)) + 300


def test_two_files_for_one_image(tmp_path):
    with pytest.raises(InputError, match='a second file for 0--A/p1'):
        read_predictions(put(tmp_path, {'a/0--A/p1.txt': GOOD, 'b/0--A/p1.txt': GOOD}))


def test_refuses_what_is_no_folder_or_zip(tmp_path):
    with pytest.raises(InputError, match='not there'):
        read_predictions(tmp_path / 'absent')
    (tmp_path / 'x.zip').write_bytes(b'no zip')
    with pytest.raises(InputError, match='not a whole zip'):
        read_predictions(tmp_path / 'x.zip')
    whole = zipped(tmp_path / 'y.zip', {'0--A/p1.txt': GOOD * 50}).read_bytes()
    (tmp_path / 'y.zip').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match='not a whole zip'):
        read_predictions(tmp_path / 'y.zip')
    damaged = bytearray(whole)
    damaged[50:60] = bytes(10)
    (tmp_path / 'y.zip').write_bytes(damaged)
    with pytest.raises(InputError, match='not a whole zip'):
        read_predictions(tmp_path / 'y.zip')


def test_bounds_what_is_unpacked(tmp_path, monkeypatch):
    source = zipped(tmp_path / 'z.zip', {'0--A/p1.txt': 'p1\n0\n' + ' ' * 5000})
    monkeypatch.setattr('polynl_mmdet.wider_face.predictions._LARGEST_FILE', 4000)
    with pytest.raises(InputError, match='5005 bytes unpacked'):
        read_predictions(source)


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
    assert (tmp_path / '0--A' / 'p2.txt').read_text() == 'p2\n0\n'


@pytest.mark.parametrize('name', ['p1', '../p1', 'a/b/c', '0--A/..', '/p1'])
def test_writes_only_into_event_folders(tmp_path, name):
    with pytest.raises(InputError, match='not the name of an image'):
        write_predictions(tmp_path, {name: np.zeros((0, 5))})
