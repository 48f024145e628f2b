"""Lists of text and numbers in MATLAB 5 files, read without trust.

SciPy's reader follows a damaged file into memory that is not its own, makes room for as many cells
as a matrix says it has, and unpacks whatever is compressed: a few bytes end the process or take
all memory. The evaluation files of WIDER FACE need cells, text and plain numbers alone.
Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection

import numpy as np

HEADER = 128  # Bytes of text, version and byte order.
MOST_NESTED = 16
# Unpacked bytes for one of the file; the official files have 7, deflate can reach 1,032.
MOST_UNPACKED = 300
_MATRIX, _COMPRESSED = 14, 15
_CELL, _TEXT = 1, 4
_COMPLEX = 0x0800
# Types of numbers by their code in the file, and of matrices by their class.
_STORED = {
    1: 'i1',
    2: 'u1',
    3: 'i2',
    4: 'u2',
    5: 'i4',
    6: 'u4',
    7: 'f4',
    9: 'f8',
    12: 'i8',
    13: 'u8',
}
_CLASSES = {
    6: 'f8', 7: 'f4', 8: 'i1', 9: 'u1', 10: 'i2', 11: 'u2', 12: 'i4', 13: 'u4', 14: 'i8', 15: 'u8'
}  # fmt: skip
_ENCODINGS = {1: 'latin-1', 2: 'latin-1', 4: 'utf-16', 16: 'utf-8', 17: 'utf-16', 18: 'utf-32'}


def read_mat_file(data: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read variables of a file, and follow all others to its end.

    Args:
        data (bytes): The whole file.
        names (Collection[str]): The variables to read.

    Returns:
        dict[str, np.ndarray]: Those that are there. Cells are arrays of objects of their shape,
        text is an array of one string without dimensions, numbers are arrays of their type.

    Raises:
        ValueError: The file is cut off or damaged, would take far more memory than its size, or
            such a variable is neither cells nor text nor real numbers.
    """
    order = {b'IM': '<', b'MI': '>'}.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError('no MATLAB 5 header')
    room = MOST_UNPACKED * len(data)
    found = {}
    at = HEADER
    while at < len(data):
        kind, length = _tag(data, at, order)
        part = data[at + 8 : at + 8 + length]
        if kind not in (_MATRIX, _COMPRESSED) or len(part) < length:
            raise ValueError(f'cut off or damaged at byte {min(at + 8 + length, len(data))}')
        at += 8 + length
        if kind == _COMPRESSED:
            part = _unpack(part, room)
            room -= len(part)
            kind, length = _tag(part, 0, order)
            part = part[8:]
            if kind != _MATRIX or len(part) < length:
                raise ValueError(f'a compressed part that ends early, before byte {at}')
        elements = _elements(memoryview(part), order)
        name = bytes(elements[2][1]).decode('latin-1') if len(elements) > 2 else ''
        if name in names:
            found[name] = _value(elements, order, MOST_NESTED)
    return found


def _tag(data: bytes | memoryview, at: int, order: str) -> tuple[int, int]:
    """Kind and length in bytes of the part at a place."""
    if at + 8 > len(data):
        raise ValueError(f'cut off or damaged at byte {len(data)}')
    return struct.unpack_from(f'{order}II', data, at)


def _unpack(part: bytes, room: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(part, max(room, 1))
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not stream.eof:
        cut = not stream.unconsumed_tail
        raise ValueError(
            'a compressed part that is cut off' if cut else 'a compressed part of too much content'
        )
    return unpacked


def _elements(matrix: memoryview, order: str) -> list[tuple[int, memoryview]]:
    """Kind and bytes of each data element; short ones have their bytes inside the tag."""
    found = []
    at = 0
    while at + 8 <= len(matrix):
        kind, length = _tag(matrix, at, order)
        if kind >> 16:
            found.append((kind & 0xFFFF, matrix[at + 4 : at + 4 + min(kind >> 16, 4)]))
            at += 8
            continue
        content = matrix[at + 8 : at + 8 + length]
        if len(content) < length:
            raise ValueError('a matrix that is cut off')
        found.append((kind, content))
        at += 8 + length + (-length % 8)
    return found


def _value(elements: list[tuple[int, memoryview]], order: str, depth: int) -> np.ndarray:
    """A matrix from its elements: class, sizes, name, then its content."""
    if not elements:
        return np.zeros((0, 0))  # An empty cell is a matrix without anything.
    if len(elements) < 3 or len(elements[0][1]) < 4 or len(elements[1][1]) % 4:
        raise ValueError('a matrix without class, size or name')
    flags = struct.unpack_from(f'{order}I', elements[0][1])[0]
    sizes = struct.unpack(f'{order}{len(elements[1][1]) // 4}i', elements[1][1])
    count = math.prod(sizes)
    if len(sizes) < 2 or any(size < 0 for size in sizes):
        raise ValueError(f'a matrix of the size {sizes}')
    kind, content = flags & 0xFF, elements[3:]
    if kind == _CELL:
        return _cells(content, sizes, order, depth)
    if kind == _TEXT:
        return np.array(_text(content, count, order))
    if kind not in _CLASSES or flags & _COMPLEX:
        raise ValueError(f'a matrix of class {kind}, neither cells nor text nor real numbers')
    stored = _STORED.get(content[0][0] if content else 9)
    if stored is None:
        raise ValueError(f'numbers of kind {content[0][0]}')
    numbers = np.frombuffer(content[0][1] if content else b'', f'{order}{stored}')
    if len(numbers) != count:
        raise ValueError(f'{len(numbers)} numbers for a matrix of the size {sizes}')
    return numbers.astype(_CLASSES[kind]).reshape(sizes, order='F')


def _cells(
    content: list[tuple[int, memoryview]], sizes: tuple[int, ...], order: str, depth: int
) -> np.ndarray:
    if not depth:
        raise ValueError(f'cells more than {MOST_NESTED} deep')
    if math.prod(sizes) != len(content) or any(kind != _MATRIX for kind, _ in content):
        raise ValueError(f'a list of {math.prod(sizes)} with {len(content)} in it')
    cells = np.empty(len(content), dtype=object)
    for index, (_, inside) in enumerate(content):
        cells[index] = _value(_elements(inside, order), order, depth - 1)
    return cells.reshape(sizes, order='F')


def _text(content: list[tuple[int, memoryview]], count: int, order: str) -> str:
    if not content:
        return ''
    kind, text = content[0]
    encoding = _ENCODINGS.get(kind)
    if encoding is None:
        raise ValueError(f'text of kind {kind}')
    if encoding in ('utf-16', 'utf-32'):
        encoding += '-le' if order == '<' else '-be'
    decoded = bytes(text).decode(encoding)  # UnicodeDecodeError is a ValueError.
    if len(decoded) != count:
        raise ValueError(f'{len(decoded)} characters for text of {count}')
    return decoded
