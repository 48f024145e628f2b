"""Image files that are whole and of the size that their annotation says."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from polynl_mmdet.errors import InputError

_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # EXIF tag; from 5 on width and height change places.
_START_OF_SCAN, _END_OF_JPEG = 0xDA, b'\xff\xd9'


class BadImageError(InputError):
    """An image that cannot be used: missing, empty, cut off, not an image, or of another size."""


def check_image(path: str, content: bytes, stated: tuple, turned: bool = True) -> None:
    """Check an image file without decoding it.

    OpenCV fills what is missing of a truncated JPEG with grey, and says nothing.

    Args:
        path (str): Its name, for the error.
        content (bytes): The file. JPEG, PNG and WebP have an end that can be found; what else is
            cut off is left to the decoder.
        stated (tuple): Height and width in pixels by the annotation; None where it tells none.
        turned (bool): Whether the loader applies the EXIF orientation. Defaults to True.

    Raises:
        BadImageError: The file is empty, cut off, no image, or of another size.
    """
    defect = truncation(content)
    if defect:
        raise BadImageError(path, defect, 'accepted: a whole image')
    try:
        with Image.open(io.BytesIO(content)) as image:
            stored = image.height, image.width
            swapped = image.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
    except Exception:
        # Pillow knows fewer formats than OpenCV, and fails in any way: OSError, SyntaxError, ...
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise BadImageError(
                path, 'not an image that can be decoded', 'accepted: what OpenCV reads'
            ) from None
        stored, swapped = decoded.shape[:2], False
    height, width = stored[::-1] if swapped and turned else stored
    if None in stated or tuple(stated) == (height, width):
        return
    found = f'{width} x {height} pixels'
    accepted = f'accepted: {stated[1]} x {stated[0]}, as in the annotation'
    if tuple(stated) == stored:
        found += f' once turned by its EXIF orientation, {height} x {width} as stored'
        accepted += (
            '; where annotations are for images as stored, set color_type='
            "'color_ignore_orientation' of LoadImageFromFile"
        )
    raise BadImageError(path, found, accepted)


def truncation(content: bytes) -> str:
    """Say what is missing of an image file, such as 'a JPEG that is cut off'; '' if it is whole."""
    if not content:
        return 'an empty file'
    if content.startswith(b'\xff\xd8'):
        return '' if _jpeg_ends(content) else 'a JPEG that is cut off'
    if content.startswith(b'\x89PNG'):
        return '' if b'IEND' in content[-4096:] else 'a PNG that is cut off'
    if content.startswith(b'RIFF') and content[8:12] == b'WEBP':
        stated = int.from_bytes(content[4:8], 'little') + 8
        return '' if len(content) >= stated else 'a WebP that is cut off'
    return ''


def _jpeg_ends(content: bytes) -> bool:
    """Return whether an end mark follows the first scan.

    The segments before it are passed over: a thumbnail in them has scans and an end of its own.
    """
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        if content[at + 1] == _START_OF_SCAN:
            return content.find(_END_OF_JPEG, at) >= 0
        length = int.from_bytes(content[at + 2 : at + 4], 'big')
        at += 1 if content[at + 1] == 0xFF else 2 + length  # 0xFF 0xFF: a byte that fills.
    return at + 4 <= len(content)  # Not a JPEG's structure: the decoder reports it.
