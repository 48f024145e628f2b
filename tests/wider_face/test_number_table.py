"""Rows of numbers in text files."""

from __future__ import annotations

import numpy as np
import pytest

from polynl_mmdet.wider_face.number_table import parse_row, quote, split_lines


def test_parses_to_the_last_bit():
    rng = np.random.default_rng(0)
    values = rng.normal(size=300) * 10.0 ** rng.integers(-300, 300, 300)
    assert parse_row(' '.join(map(repr, values.tolist())), 'f:1', '') == values.tolist()


@pytest.mark.parametrize('line', ['1 2 ', ' 1\t2\r', '+1. 2e0', '1\xa02'])
def test_white_space_and_notations(line):
    assert parse_row(line, 'f:1', '') == [1, 2]


@pytest.mark.parametrize('word', ['x', 'nan', '-inf', '0x1', '1,5', '1.2.3', '1e', '1e999', '#'])
def test_what_is_no_number_is_an_error(word):
    with pytest.raises(ValueError, match=r'^f:7: got "1 .*", expected two numbers$') as caught:
        parse_row(f'1 {word}', 'f:7', 'two numbers')
    assert quote(word)[1:-1] in str(caught.value)


def test_quotes_stay_on_one_short_line():
    assert quote('a\x00\xff\tb' * 90).startswith('"a\\x00\\xff\\tb')
    assert len(quote('\xff' * 9000)) == 62


@pytest.mark.parametrize('end', ['\r', '\x0b', '\x0c', '\x85', '\u2028'])
def test_only_line_feeds_end_a_line(end):
    assert len(split_lines(f'1 2{end}3 4\n5 6')) == 2
