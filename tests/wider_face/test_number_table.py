"""The strict number parser, against Python's float."""

from __future__ import annotations

import numpy as np
import pytest

from polynl_mmdet.wider_face.number_table import TableError, parse_table, quote


def test_parses_to_the_last_bit():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3)) * 10.0 ** rng.integers(-300, 300, (500, 3))
    text = '\n'.join(' '.join(map(repr, row)) for row in values.tolist())
    np.testing.assert_array_equal(parse_table(text.encode(), 3), values)


@pytest.mark.parametrize(
    'text', [b'1 2\n3 4', b'\n1 2 \n\n 3\t4\n', b'1 2\r\n3 4\r\n', b'+1. 2e0\n.3e1 4\n\n']
)
def test_white_space_and_notations(text):
    assert parse_table(text, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize('text', [b'', b'\n', b' \r\n \n'])
def test_nothing(text):
    assert parse_table(text, 2).shape == (0, 0)


def test_first_line_chooses_the_width():
    assert parse_table(b'1 2\n3 4', {2, 3}).shape == (2, 2)
    with pytest.raises(TableError, match='2 columns') as caught:
        parse_table(b'1 2 3\n\n3 4', {2, 3})
    assert caught.value.row == 2


@pytest.mark.parametrize(
    'word',
    ['x', 'nan', 'inf', '-inf', '1_0', '0x1', '1,5', '1.2.3', '--1', '1e', '1e999', '#', '"1"'],
)
def test_what_is_no_number_is_found(word):
    text = '\n'.join(['1 2'] * 300 + [f'1 {word}'] + ['1 2'] * 9).encode()
    with pytest.raises(TableError) as caught:
        parse_table(text, 2)
    assert caught.value.row == 300
    assert quote(word.encode()) in caught.value.found


def test_quotes_stay_on_one_short_line():
    assert quote(b'a\x00\xff\tb' * 90).startswith('"a\\x00\\xff\\x09b')
    assert len(quote(b'\xff' * 9000)) == 62
