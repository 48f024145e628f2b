"""Text tables of numbers, read by NumPy; an error names the line at fault."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from polynl_mmdet.errors import InputError


def quote(text: str) -> str:
    """Return text of a file for an error message: quoted, escaped, at most 60 characters."""
    shown = ascii(text.strip())[1:-1]
    return f'"{shown if len(shown) <= 60 else shown[:57] + "..."}"'


def split_lines(text: str) -> list[str]:
    """Split at line feeds; a carriage return is white space, or it would make two rows of one."""
    return text.replace('\r', ' ').split('\n')


def parse_table(
    lines: list[str], columns: Collection[int], where: Callable[[int], str], accepted: str
) -> np.ndarray:
    """Parse lines of white-space separated finite decimal numbers; blank lines do not count.

    Args:
        lines (list[str]): The lines, as ``split_lines`` gives them.
        columns (Collection[int]): Numbers a line may have; the first line chooses for all.
        where (Callable[[int], str]): Names the line of this index, for the error.
        accepted (str): What a line should be, for the error.

    Returns:
        np.ndarray: float64, shape (rows, columns); of an accepted number of columns without rows.

    Raises:
        InputError: At the first line with another number of columns or with something that is not
            a finite number.
    """
    rows = [line for line in lines if line and not line.isspace()]
    if not rows:
        return np.zeros((0, min(columns)))
    width = len(rows[0].split())
    try:
        table = np.loadtxt(rows, dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        table = None
    if table is None or width not in columns or not np.isfinite(table).all():
        row, found = _first_error(lines, {width} if width in columns else columns)
        raise InputError(where(row), found, accepted)
    return table


def _first_error(lines: list[str], columns: Collection[int]) -> tuple[int, str]:
    for row, line in enumerate(lines):
        words = line.split()
        if words and len(words) not in columns:
            return row, f'{len(words)} columns in {quote(line)}'
        for word in words:
            if not _is_finite_number(word):
                return row, f'{quote(word)} in {quote(line)}'
    raise AssertionError('NumPy refuses numbers that Python takes')


def _is_finite_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word))) and word.isascii() and '_' not in word
    except ValueError:
        return False
