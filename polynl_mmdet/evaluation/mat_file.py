"""MATLAB 5 files, checked before SciPy reads them: no larger, no deeper than they may be.

SciPy makes room for as many cells as a matrix says it has, follows cells in cells as deep as they
go and unpacks whatever is compressed, so that a few bytes may take all memory or end the process.
Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import math
import struct
import zlib

HEADER = 128  # Bytes of text, version and byte order.
MOST_NESTED = 16
# Unpacked bytes for one of the file; the official files have 17 at most, deflate up to 1,032.
MOST_UNPACKED = 300
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT = 1, 2, 3
_PLAIN_CLASSES = range(4, 16)  # Text, sparse and numbers.


def check_mat_file(data: bytes) -> None:
    """Follow all parts of a file to its end.

    Args:
        data (bytes): The whole file.

    Raises:
        ValueError: It is cut off or damaged, or would take far more memory than its size.
    """
    order = {b'IM': '<', b'MI': '>'}.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError('no MATLAB 5 header')
    room = MOST_UNPACKED * len(data)
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
        _check_matrix(memoryview(part), order, MOST_NESTED)


def _tag(data: bytes | memoryview, at: int, order: str) -> tuple[int, int]:
    """Kind and length in bytes of the part at a place."""
    if at + 8 > len(data):
        raise ValueError(f'cut off or damaged at byte {len(data)}')
    return struct.unpack_from(f'{order}II', data, at)


def _unpack(part: bytes, room: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(part, max(room, 1))
    if not stream.eof:
        cut = not stream.unconsumed_tail
        raise ValueError(
            'a compressed part that is cut off' if cut else 'a compressed part of too much content'
        )
    return unpacked


def _elements(matrix: memoryview, order: str) -> list[memoryview]:
    """The data elements one after the other; short ones have their bytes inside the tag."""
    found = []
    at = 0
    while at + 8 <= len(matrix):
        kind, length = _tag(matrix, at, order)
        if kind >> 16:
            found.append(matrix[at + 4 : at + 4 + min(kind >> 16, 4)])
            at += 8
            continue
        content = matrix[at + 8 : at + 8 + length]
        if len(content) < length:
            raise ValueError('a matrix that is cut off')
        found.append(content)
        at += 8 + length
        if kind != _COMPRESSED:
            at += -length % 8
    return found


def _check_matrix(matrix: memoryview, order: str, depth: int) -> None:
    """Compare the number of cells that a matrix states with what it has."""
    if not depth:
        raise ValueError(f'cells more than {MOST_NESTED} deep')
    elements = _elements(matrix, order)
    if not elements:
        return  # An empty cell is a matrix without anything.
    if len(elements) < 3 or len(elements[0]) < 4 or len(elements[1]) % 4:
        raise ValueError('a matrix without class, size or name')
    kind = struct.unpack_from(f'{order}I', elements[0])[0] & 0xFF
    sizes = struct.unpack(f'{order}{len(elements[1]) // 4}i', elements[1])
    if any(size < 0 for size in sizes):
        raise ValueError(f'a matrix of the size {sizes}')
    if kind in (_CELL, _STRUCT, _OBJECT):
        inside = elements[3:] if kind == _CELL else _fields(elements, kind)
        if math.prod(sizes) > len(inside):
            raise ValueError(f'a list of {math.prod(sizes)} with {len(inside)} in it')
        for element in inside:
            _check_matrix(element, order, depth - 1)
    elif kind not in _PLAIN_CLASSES:
        raise ValueError(f'a matrix of class {kind}')


def _fields(elements: list[memoryview], kind: int) -> list[memoryview]:
    """Values of a struct or object: after its class name (objects), name length and names."""
    return elements[6 if kind == _OBJECT else 5 :]
