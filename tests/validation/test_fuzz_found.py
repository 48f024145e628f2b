"""What fuzzing found, each as the smallest file that showed it."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from fuzz_readers import CONVERTER, LABEL_V2, OFFICIAL, coco, ground_truth
from scipy.io import savemat

from polynl_mmdet.coco_annotations import check_coco, read_coco
from polynl_mmdet.datasets import CheckedCocoDataset
from polynl_mmdet.engine.checkpoints import checkpoint_defect, load_checkpoint
from polynl_mmdet.errors import InputError
from polynl_mmdet.evaluation import CheckedCocoMetric
from polynl_mmdet.wider_face import read_ground_truth, read_predictions, write_ground_truth
from polynl_mmdet.wider_face.annotations import read_annotations
from polynl_mmdet.wider_face.mat_file import read_mat_file


@pytest.fixture
def label(tmp_path):
    """Callable: write an annotation file and read it."""

    def read(text):
        path = tmp_path / 'labels.txt'
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_annotations(path)

    return read


def refused(says, function, *arguments):
    """The function raises InputError, whose message has the words."""
    with pytest.raises(InputError, match=says) as caught:
        function(*arguments)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('size', ['9' * 10, '9' * 25, '9' * 5000])
def test_a_image_size_beyond_any_image(label, size):
    refused(r'labels\.txt:1', label, LABEL_V2.replace('1024', size))


@pytest.mark.parametrize('end', [b'\r', b'\x0b', b'\x0c', b'\x1c', b'\x85', b'\xa0'])
def test_a_row_that_another_line_end_makes_two(label, tmp_path, end):
    text = OFFICIAL.replace('2 1 0 1 2 1', '2 1 0 1 2').encode()
    refused(r'labels\.txt:4', label, text.replace(b'54 82', b'54' + end + b'82'))


def predictions(tmp_path, *texts):
    folder = tmp_path / '0--A'
    folder.mkdir(exist_ok=True)
    for index, text in enumerate(texts):
        (folder / f'p{index}.txt').write_text(text)
    return read_predictions(tmp_path)[0]


def test_blank_lines_are_no_detections_even_if_announced(tmp_path):
    # Counted as one, it moved the detections of all later images.
    good = 'p\n1\n9 9 9 9 .9\n'
    refused(r'p0\.txt:2: announces 3 detections, 2 follow',
            predictions, tmp_path, 'p\n3\n1 2 3 4 .5\n\n5 6 7 8 .5\n', good)  # fmt: skip
    found = predictions(tmp_path, 'p\n2\n1 2 3 4 .5\n\n5 6 7 8 .5\n', good)
    assert found['0--A/p1'].tolist() == [[9, 9, 9, 9, 0.9]]


def test_the_line_of_an_error_counts_blank_lines(tmp_path):
    refused(r'p0\.txt:5', predictions, tmp_path, 'p\n1\n\n\n1 2 3 x .5\n')


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_zip_of_predictions_that_grows(tmp_path):
    path = tmp_path / 'z.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        body = '0 0 1 1 0\n' * 100_000
        for n in range(20):
            archive.writestr(f'0--A/p{n}.txt', f'p\n100000\n{body}')
    size = path.stat().st_size
    assert peak_of(lambda: refused('bytes unpacked', read_predictions, path)) < 400 * size + (
        8 << 20
    )


def test_a_zip_whose_decoder_takes_what_memory_it_is_told_to(tmp_path):
    path = tmp_path / 'z.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as archive:
        archive.writestr('0--A/p1.txt', 'p1\n0\n')
    refused('packed by LZMA', read_predictions, path)


def test_a_zip_whose_names_are_not_utf8(tmp_path):
    path = tmp_path / 'z.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('0--A/pä.txt', 'p\n0\n')
    path.write_bytes(path.read_bytes().replace('ä'.encode(), b'\xff\xff'))
    refused('not a whole zip', read_predictions, path)


@pytest.mark.parametrize('count', ['1' + '0' * 12, '999999999', '9' * 400])
def test_counts_allocate_nothing(label, tmp_path, count):
    text = OFFICIAL.replace('jpg\n2', f'jpg\n{count}')
    assert peak_of(lambda: refused(r'labels\.txt:2', label, text)) < 1 << 20
    assert peak_of(
        lambda: refused(r'p0\.txt:2', predictions, tmp_path, f'p\n{count}\n1 2 3 4 .5\n')
    ) < (1 << 20)


def mat(kind, sizes, content=b'', name=b'gt_list'):
    """A .mat file of one matrix of a class and sizes, with any content."""

    def element(code, data):
        return struct.pack('<II', code, len(data)) + data + bytes(-len(data) % 8)

    matrix = element(6, struct.pack('<II', kind, 0))
    matrix += element(5, struct.pack(f'<{len(sizes)}i', *sizes)) + element(1, name) + content
    return b'M'.ljust(124) + b'\x00\x01IM' + element(14, matrix)


def number(code=9, data=bytes(8)):
    return struct.pack('<II', code, len(data)) + data


@pytest.mark.parametrize(
    'data',
    [
        mat(1, (10**9, 1)),  # SciPy makes room for a thousand million cells.
        mat(1, (65536, 65536)),
        mat(1, (-1, 1)),
        mat(6, (1, 1), number(code=250)),  # SciPy's table of types ends before; it crashed.
        mat(6, (1, 1), number(code=14)),
        mat(6, (10**6, 10**6), number()),
        mat(4, (1, 1), number(code=9)),
        mat(5, (1, 1), number()),
        mat(2, (1, 1), number()),
        mat(200, (1, 1), number()),
        mat(6, (), number()),
        mat(1, (1, 1), struct.pack('<II', 14, 0xFFFFFFF0)),
    ],
)
def test_matrices_that_are_not_what_they_say(data):
    def read():
        with pytest.raises(ValueError, match=r'.'):
            read_mat_file(data, ['gt_list'])

    assert peak_of(read) < 1 << 20


def test_cells_that_go_too_deep():
    inner = b''
    for _ in range(5000):
        content = mat(1, (1, 1), inner, b'')[128:]
        inner = content
        if len(inner) > 200_000:
            break
    data = mat(1, (1, 1), inner)
    with pytest.raises(ValueError, match='deep'):
        read_mat_file(data, ['gt_list'])


def test_a_mat_file_that_grows():
    packed = zlib.compress(bytes(1 << 26), 9)
    data = b'M'.ljust(124) + b'\x00\x01IM' + struct.pack('<II', 15, len(packed)) + packed

    def read():
        with pytest.raises(ValueError, match='too much content'):
            read_mat_file(data, ['gt_list'])

    assert peak_of(read) < 700 * len(data)


def test_big_and_small_numbers_and_text_of_both_byte_orders(tmp_path):
    content = {
        'cells': np.array(
            [['a b'], [np.arange(6).reshape(2, 3)], [np.zeros((0, 4))]], dtype=object
        ),
        'numbers': np.array([[1.5, -2], [3, 4]]),
        'text': 'Ä name',
        'single': np.float32([[1, 2]]),
    }
    savemat(tmp_path / 'x.mat', content)
    found = read_mat_file((tmp_path / 'x.mat').read_bytes(), list(content))
    assert found['cells'].shape == (3, 1)
    assert found['cells'][0, 0].item() == 'a b'
    np.testing.assert_array_equal(found['cells'][1, 0], np.arange(6).reshape(2, 3))
    assert found['cells'][2, 0].shape == (0, 4)
    np.testing.assert_array_equal(found['numbers'], content['numbers'])
    assert found['text'].item() == 'Ä name'
    assert found['single'].dtype == np.float32


def test_ground_truth_that_counts_part_of_a_face(tmp_path):
    write_ground_truth(tmp_path, ground_truth())
    cells = np.empty((2, 1), dtype=object)
    for event, counts in enumerate(([[[1.5]], [[]]], [[[1.0]]])):
        cells[event, 0] = np.empty((len(counts), 1), dtype=object)
        for image, values in enumerate(counts):
            cells[event, 0][image, 0] = np.array(values)
    savemat(tmp_path / 'wider_easy_val.mat', {'gt_list': cells})
    refused('not whole', read_ground_truth, tmp_path)
    cells[0, 0] = np.array([[1.0]])
    savemat(tmp_path / 'wider_easy_val.mat', {'gt_list': cells})
    refused('wider_easy_val', read_ground_truth, tmp_path)


def test_ground_truth_with_a_image_twice(tmp_path):
    truth = ground_truth()
    truth.images[1] = truth.images[0]
    write_ground_truth(tmp_path, truth)
    refused('two images of one name', read_ground_truth, tmp_path)


@pytest.mark.parametrize(
    ('section', 'key', 'value', 'says'),
    [
        ('images', 'width', None, r'images\[0\]\.width: None'),
        ('images', 'height', 0, r'images\[0\]\.height: 0'),
        ('images', 'width', 10**12, r'images\[0\]\.width'),
        ('images', 'file_name', 'a\0.jpg', r'images\[0\]\.file_name'),
        ('images', 'id', [1], r'images\[0\]\.id: \[1\]'),
        ('annotations', 'image_id', 7, r'annotations\[0\]\.image_id: 7'),
        ('annotations', 'category_id', {}, r'annotations\[0\]\.category_id'),
        ('annotations', 'bbox', [1, 2, 3], r'annotations\[0\]\.bbox'),
        ('annotations', 'bbox', [1, 2, 3, float('nan')], r'annotations\[0\]\.bbox'),
        ('annotations', 'area', 'big', r'annotations\[0\]\.area'),
        ('annotations', 'id', 2, r'annotations\[1\]\.id: 2 for the second time'),
        ('annotations', 'segmentation', [[1, 2, 3, 4]], 'the polygon'),
        ('annotations', 'segmentation', [[1, 2, 30, 3e24, 5, 6]], r'reaches 3e\+24, in a'),
        ('annotations', 'segmentation', [[1, 2, -51, 3, 5, 6]], 'reaches -51, in a'),
        ('annotations', 'segmentation', {'size': [9, 9], 'counts': [81]}, 'image of'),
        ('annotations', 'segmentation', {'size': [40, 50], 'counts': [1999]}, 'of 1999 pixels'),
        ('annotations', 'segmentation', {'size': [40, 50], 'counts': 'T3'}, 'of .* pixels'),
        ('annotations', 'segmentation', {'size': [40, 50], 'counts': '~'}, "run lengths '~'"),
        ('categories', 'name', None, r'categories\[0\]\.name'),
    ],
)
def test_coco_entries_that_mmdet_would_stumble_over(section, key, value, says):
    content = coco()
    check_coco(content, 'x.json')
    content[section][0][key] = value
    refused(says, check_coco, content, 'x.json')


@pytest.mark.parametrize('segmentation', [None, [], ''])
def test_an_annotation_without_the_mask_that_the_pipeline_loads(tmp_path, segmentation):
    content = coco()
    content['annotations'][2]['segmentation'] = segmentation
    path = tmp_path / 'x.json'
    path.write_text(json.dumps(content))

    def build(**load):
        return CheckedCocoDataset(
            ann_file=str(path),
            metainfo=dict(classes=('circle',)),
            data_prefix=dict(img='images'),
            pipeline=[dict(type='LoadAnnotations', **load)],
        )

    assert len(build(with_bbox=True)) == 1
    with pytest.raises(InputError, match=r'x\.json: annotation 3: no segmentation'):
        build(with_bbox=True, with_mask=True)


@pytest.mark.parametrize('name', [b'F' + b'l9' * 500, b'a\rb'])
def test_names_of_any_length_and_characters_in_a_pickle(tmp_path, name):
    path = tmp_path / 'x.pth'
    path.write_bytes(b'\x80\x02c' + b'torch\n' + name + b'\n)R.')
    with pytest.raises(InputError, match='refused') as error:
        load_checkpoint(str(path))
    assert len(error.value.found) < 400
    assert len(str(error.value).splitlines()) == 1
    assert len(checkpoint_defect(path).splitlines()) == 1


def test_coco_files_that_are_no_json_at_all(tmp_path):
    path = tmp_path / 'x.json'
    for data in (b'[' * 100_000, b'\xff\xfe', b'{"images": [1e', b'9' * 5000, b''):
        path.write_bytes(data)
        refused(r'x\.json: not', read_coco, str(path))
        refused(r'x\.json: not', CheckedCocoMetric, str(path))
    path.write_text(json.dumps({**coco(), 'annotations': {}}))
    refused('no list annotations', CheckedCocoMetric, str(path))


@pytest.mark.parametrize(
    ('state', 'says'),
    [
        ({'a': torch.zeros(2, dtype=torch.complex64)}, 'complex64'),
        ({'a': torch.zeros(2, dtype=torch.int32)}, 'int32'),
        ({'a': torch.tensor(float('nan'))}, 'not finite'),
        ({'a': torch.zeros(1), 'module.a': torch.ones(1)}, 'with and without'),
    ],
)
def test_weights_that_are_none(tmp_path, state, says):
    torch.save(state, tmp_path / 'x.pth')
    refused(says, CONVERTER['load_source'], str(tmp_path / 'x.pth'))


def test_a_score_without_dimensions_is_a_misfit_and_no_crash():
    placed, _ = CONVERTER['convert']({'ClassHead.0.conv1x1.bias': torch.tensor(1.0)})
    assert placed['bbox_head.conv_cls.0.bias'].shape == ()


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs named pipes')
def test_a_pipe_among_prediction_files_is_not_waited_for(tmp_path):
    (tmp_path / '0--A').mkdir()
    os.mkfifo(tmp_path / '0--A' / 'p1.txt')
    refused('not a file', read_predictions, tmp_path)
