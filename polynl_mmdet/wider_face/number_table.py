"""Text tables of numbers, read by NumPy; an error names the line at fault."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np


class TableError(ValueError):
    """A line that is not the expected row of numbers.

    Args:
        row (int): 0-based line within the text that was parsed.
        found (str): What is on that line.
    """

    def __init__(self, row: int, found: str) -> None:
        super().__init__(f'line {row + 1}: {found}')
        self.row = row
        self.found = found


def quote(text: str) -> str:
    """Return text of a file for an error message: quoted, escaped, at most 60 characters."""
    shown = ascii(text.strip())[1:-1]
    return f'"{shown if len(shown) <= 60 else shown[:57] + "..."}"'


def parse_table(lines: list[str], *columns: int) -> np.ndarray:
    """Parse lines of white-space separated finite decimal numbers; blank lines do not count.

    Args:
        lines (list[str]): The lines, without line feeds.
        *columns (int): Numbers a line may have; the first line chooses for all.

    Returns:
        np.ndarray: float64, shape (rows, columns); (0, 0) if there is no row.

    Raises:
        TableError: At the first line with another number of columns or with something that is not
            a finite number.
    """
    # A lone carriage return is white space, or one line would become two rows.
    rows = [line.replace('\r', ' ') for line in lines if line and not line.isspace()]
    if not rows:
        return np.zeros((0, 0))
    width = len(rows[0].split())
    try:
        table = np.loadtxt(rows, dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        table = None
    if width not in columns or table is None or not np.isfinite(table).all():
        raise _first_error(lines, {width} if width in columns else columns)
    return table


def _first_error(lines: list[str], columns: Collection[int]) -> TableError:
    for row, line in enumerate(lines):
        words = line.split()
        if words and len(words) not in columns:
            return TableError(row, f'{len(words)} columns in {quote(line)}')
        for word in words:
            if not _is_finite_number(word):
                return TableError(row, f'{quote(word)} in {quote(line)}')
    raise AssertionError('NumPy refuses numbers that Python takes')


def _is_finite_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word))) and word.isascii() and '_' not in word
    except ValueError:
        return False
