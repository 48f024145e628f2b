"""MATLAB 5 files of cells, text and numbers, read by SciPy once their structure was checked.

SciPy believes what a damaged file says: it makes room for as many cells as a matrix claims to
have, unpacks whatever is compressed, and reads outside its table of types, which ends the process.
Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Collection, Iterator
from itertools import islice

import numpy as np
from scipy.io import loadmat

HEADER = 128  # Bytes of text, version and byte order.
MOST_NESTED = 16
# Unpacked bytes for one of the file; the official files have 7, deflate can reach 1,032.
MOST_UNPACKED = 300
_FLAGS, _MATRIX, _COMPRESSED = 6, 14, 15  # Types of elements.
_NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}  # Types of numbers and of text.
_CELL, _CLASSES, _COMPLEX = 1, {1, 4, *range(6, 16)}, 0x800  # Cells, text, numbers.


def read_mat_file(data: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read variables of a file.

    Args:
        data (bytes): The whole file.
        names (Collection[str]): The variables to read; all others are left out.

    Returns:
        dict[str, np.ndarray]: Those that are there, as :func:`scipy.io.loadmat` gives them.

    Raises:
        ValueError: The file is cut off or damaged, would take far more memory than its size, or
            one of the variables is neither cells nor text nor real numbers.
    """
    order = {b'IM': '<', b'MI': '>'}.get(data[HEADER - 2 : HEADER])
    if order is None or 0 in data[:4]:
        raise ValueError('no MATLAB 5 header')
    room = MOST_UNPACKED * len(data)
    wanted = [data[:HEADER]]
    try:
        for kind, content in _elements(memoryview(data)[HEADER:], order, pad=1):
            if kind == _COMPRESSED:
                unpacked = _unpack(content, room)
                room -= len(unpacked)
                kind, content = next(_elements(memoryview(unpacked), order), (0, b''))
            if kind != _MATRIX or len(content) % 8:
                raise ValueError(f'an element of type {kind} and {len(content)} bytes')
            _, _, name = _header(_elements(content, order))
            if bytes(name).decode('latin-1') in names:
                _check_matrix(content, order, MOST_NESTED)
                wanted += [struct.pack(f'{order}II', _MATRIX, len(content)), content]
        return loadmat(io.BytesIO(b''.join(wanted)))
    except (zlib.error, TypeError, NotImplementedError) as error:
        raise ValueError(str(error)) from None


def _unpack(content: memoryview, room: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(content, room + 1)
    if len(unpacked) > room:
        raise ValueError('a compressed part of too much content')
    if not stream.eof:
        raise ValueError('a compressed part that is cut off')
    return unpacked


def _elements(data: memoryview, order: str, pad: int = 8) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of each element; each starts at a multiple of ``pad`` bytes."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError('an element that is cut off')
        kind, length = struct.unpack_from(f'{order}II', data, at)
        at += 8
        if kind >> 16:  # Up to four bytes of content inside the tag.
            yield kind & 0xFFFF, data[at - 4 : at - 4 + (kind >> 16)]
            continue
        if at + length > len(data):
            raise ValueError(f'an element of {length} bytes, of which {len(data) - at} are there')
        yield kind, data[at : at + length]
        at += length + -length % pad


def _header(elements: Iterator[tuple[int, memoryview]]) -> list[memoryview]:
    """Take class, size and name of a matrix from the start of its elements."""
    header = list(islice(elements, 3))
    if len(header) < 3 or header[0][0] != _FLAGS or len(header[0][1]) != 8:
        raise ValueError('a matrix without class, size or name')
    return [content for _, content in header]


def _check_matrix(matrix: memoryview, order: str, depth: int) -> None:
    """Check what SciPy relies on, in a matrix and in all that is inside it."""
    if not depth:
        raise ValueError(f'cells more than {MOST_NESTED} deep')
    elements = _elements(matrix, order)
    flags, sizes, _ = _header(elements)
    content = list(elements)
    flag = struct.unpack_from(f'{order}I', flags)[0]
    count = math.prod(struct.unpack_from(f'{order}{len(sizes) // 4}I', sizes))
    kinds = {kind for kind, _ in content}
    if flag & 0xFF not in _CLASSES or flag & _COMPLEX or len(sizes) < 8:
        raise ValueError(f'class {flag & 0xFF}, neither cells nor text nor real numbers')
    if flag & 0xFF != _CELL:
        if len(content) != 1 or not kinds <= _NUMBERS or count > len(matrix):
            raise ValueError(f'{count} numbers in {len(content)} elements of types {kinds}')
    elif len(content) != count or not kinds <= {_MATRIX}:
        raise ValueError(f'{count} cells in {len(content)} elements of types {kinds}')
    else:
        for _, cell in content:
            if len(cell) % 8:
                raise ValueError(f'a cell of {len(cell)} bytes')
            if cell:  # An empty cell has no content at all.
                _check_matrix(cell, order, depth - 1)
