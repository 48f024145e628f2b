"""Text tables of plain numbers, read fast and strictly.

WIDER FACE annotation and prediction files hold up to millions of numbers, one face a line. NumPy's
own parser reads them in one call; only when it objects are the lines looked at one by one, to say
which of them is wrong.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection

import numpy as np

_NUMBER = re.compile(rb'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')
_ACCEPTED_BYTES = b'0123456789+-.eE \t\r\n'


class TableError(ValueError):
    """A line that is not the row of numbers it should be.

    Args:
        row (int): 0-based line within the text that was parsed.
        found (str): What is on that line.
    """

    def __init__(self, row: int, found: str) -> None:
        super().__init__(f'line {row + 1}: {found}')
        self.row = row
        self.found = found


def quote(text: bytes) -> str:
    """A line of a file as it is shown in an error: quoted, escaped and at most 60 characters."""
    shown = text.strip().decode('ascii', 'backslashreplace')
    shown = ''.join(c if c.isprintable() else f'\\x{ord(c):02x}' for c in shown)
    return f'"{shown if len(shown) <= 60 else shown[:57] + "..."}"'


def parse_table(text: bytes, columns: int | Collection[int]) -> np.ndarray:
    """Parse lines of white-space separated finite decimal numbers; blank lines do not count.

    Args:
        text (bytes): The lines.
        columns (int | Collection[int]): Numbers a line must have. With several to choose from, the
            first line chooses for all.

    Returns:
        np.ndarray: float64, shape (rows, columns); (0, 0) if there is no row.

    Raises:
        TableError: At the first line with another number of columns or with something that is not
            a finite number.
    """
    stripped = text.lstrip()
    if not stripped:
        return np.zeros((0, 0))
    accepted = {columns} if isinstance(columns, int) else set(columns)
    width = len(stripped.split(b'\n', 1)[0].split())
    # NumPy splits at more kinds of white space than bytes do, and ends lines at a lone \r.
    foreign = text.translate(None, _ACCEPTED_BYTES) or text.count(b'\r') > text.count(b'\r\n') + (
        text.endswith(b'\r')
    )
    if width not in accepted or foreign:
        _find_error(text, accepted if width not in accepted else {width})
    try:
        table = np.loadtxt(
            io.BytesIO(text), dtype=np.float64, comments=None, ndmin=2, encoding='latin1'
        )
    except ValueError as error:
        _find_error(text, {width})
        raise TableError(0, str(error)) from None
    if table.shape[1] != width or not np.isfinite(table).all():
        _find_error(text, {width})
        raise TableError(0, f'{table.shape[1]} columns, not {width}')
    return table


def _find_error(text: bytes, accepted: set[int]) -> None:
    """Raise a TableError at the first line that is wrong."""
    for row, line in enumerate(text.split(b'\n')):
        line = line[:-1] if line.endswith(b'\r') else line
        numbers = line.replace(b'\t', b' ').split(b' ')
        numbers = [number for number in numbers if number]
        if not numbers:
            continue
        if len(numbers) not in accepted:
            raise TableError(row, f'{len(numbers)} columns in {quote(line)}')
        for number in numbers:
            if not _NUMBER.fullmatch(number) or not np.isfinite(float(number)):
                raise TableError(row, f'{quote(number)} in {quote(line)}')
