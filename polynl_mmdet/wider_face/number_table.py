"""Lines of numbers in text files; errors name file and line."""

from __future__ import annotations

import math


def quote(text: str) -> str:
    """Return text of a file for an error message: quoted, escaped, at most 60 characters."""
    shown = ascii(text.strip())[1:-1]
    return f'"{shown if len(shown) <= 60 else shown[:57] + "..."}"'


def split_lines(text: str) -> list[str]:
    """Split at line feeds alone; carriage returns become white space."""
    return text.replace('\r', ' ').split('\n')


def parse_row(line: str, where: str, expected: str) -> list[float]:
    """Parse white-space separated finite numbers, or raise ValueError."""
    try:
        row = [float(word) for word in line.split()]
    except ValueError:
        row = [math.nan]
    if not all(map(math.isfinite, row)):
        raise ValueError(f'{where}: got {quote(line)}, expected {expected}')
    return row
