"""The strict number parser, against Python's float."""

from __future__ import annotations

import numpy as np
import pytest

from polynl_mmdet.errors import InputError
from polynl_mmdet.wider_face.number_table import parse_table, quote, split_lines


def parse(lines, *columns):
    return parse_table(lines, columns, lambda row: f'line {row + 1}', 'accepted: numbers')


def test_parses_to_the_last_bit():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3)) * 10.0 ** rng.integers(-300, 300, (500, 3))
    text = '\n'.join(' '.join(map(repr, row)) for row in values.tolist())
    np.testing.assert_array_equal(parse(split_lines(text), 3), values)


@pytest.mark.parametrize(
    'text',
    [
        '1 2\n3 4',
        '1 2\n3\r4',
        '\n1 2 \n\n 3\t4\n',
        '1 2\r\n3 4\r\n',
        '+1. 2e0\n.3e1 4\n\n',
        '1\xa02\n3 4',
    ],
)
def test_white_space_and_notations(text):
    assert parse(split_lines(text), 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize('text', ['', '\n', ' \r\n \n'])
def test_nothing(text):
    assert parse(split_lines(text), 2).shape == (0, 2)


def test_first_line_chooses_the_width():
    assert parse(['1 2', '3 4'], 2, 3).shape == (2, 2)
    with pytest.raises(InputError, match='2 columns') as caught:
        parse(['1 2 3', '', '3 4'], 2, 3)
    assert caught.value.where == 'line 3'


@pytest.mark.parametrize(
    'word',
    [
        'x',
        'nan',
        'inf',
        '-inf',
        '1_0',
        '0x1',
        '1,5',
        '1.2.3',
        '--1',
        '1e',
        '1e999',
        '#',
        '"1"',
        '٣',
    ],
)
def test_what_is_no_number_is_found(word):
    lines = ['1 2'] * 300 + [f'1 {word}'] + ['1 2'] * 9
    with pytest.raises(InputError) as caught:
        parse(lines, 2)
    assert caught.value.where == 'line 301'
    assert quote(word) in caught.value.found


def test_quotes_stay_on_one_short_line():
    assert quote('a\x00\xff\tb' * 90).startswith('"a\\x00\\xff\\tb')
    assert len(quote('\xff' * 9000)) == 62


@pytest.mark.parametrize('end', ['\r', '\x0b', '\x0c', '\x1c', '\x85', '\xa0'])
def test_a_line_stays_one_row(end):
    """NumPy ends lines at some of these when it reads a file."""
    with pytest.raises(InputError, match='line 2: 10 columns'):
        parse(split_lines(f'1 2 3 4 5\n1 2 3 4 5{end}6 7 8 9 10'), 5)
