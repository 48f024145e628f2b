"""An image from its file, whole and of the size that its annotation says."""

from __future__ import annotations

import re

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS

from ...errors import InputError, in_one_line

# In a JPEG's scans 0xFF stands before 0 (a byte 0xFF), restart marks and fill; else it is a marker.
_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class BadImageError(InputError):
    """An image that cannot be used: missing, empty, cut off, not an image, or of another size."""


@TRANSFORMS.register_module()
class LoadCheckedImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that names what is wrong with an image.

    mmcv's fills what is missing of a truncated JPEG with grey, and says nothing. Grey, CMYK, 16-bit
    images and those with transparency are read as 8-bit colour, as by mmcv's: 16 bits are cut to
    the upper 8, transparency is left out. The EXIF orientation is applied, unless ``color_type`` is
    'color_ignore_orientation'. Where the annotation tells the image's size (``height`` and
    ``width`` in the results), the image must have it.

    Args:
        **kwargs: As in mmcv's; ``ignore_empty`` is not accepted.

    Raises:
        BadImageError: The image is missing, empty, cut off, no image, or of another size.
    """

    def __init__(self, **kwargs) -> None:
        if kwargs.get('ignore_empty'):
            raise InputError(
                'LoadCheckedImage.ignore_empty',
                'True',
                "accepted: bad_images='skip' of the dataset",
            )
        super().__init__(**kwargs)

    def transform(self, results: dict) -> dict:
        """Read the image of ``results['img_path']``."""
        path = results['img_path']
        content = self._read(path)
        found = how_cut_off(content)
        if found:
            raise BadImageError(path, found, 'accepted: a whole image')
        img = self._decode(path, content, self.color_type)
        _compare_sizes(self, path, content, img, results)
        if self.to_float32:
            img = img.astype(np.float32)
        results['img'] = img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        try:
            return fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError:
            raise BadImageError(path, 'the image is missing', _WHERE) from None
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte.
            reason = getattr(error, 'strerror', None) or str(error)
            raise BadImageError(path, f'cannot be read ({reason})', _WHERE) from None

    def _decode(self, path: str, content: bytes, color_type: str) -> np.ndarray:
        try:
            img = mmcv.imfrombytes(content, flag=color_type, backend=self.imdecode_backend)
        except Exception as error:
            # Decoders stumble in their own ways: cv2.error, UnidentifiedImageError, ...
            reason = in_one_line(error, 200) or type(error).__name__
            raise BadImageError(path, f'cannot be decoded ({reason})', _FORMATS) from None
        if img is None or not img.size:
            raise BadImageError(path, 'not an image that can be decoded', _FORMATS)
        return img


_WHERE = "accepted: images under data_prefix['img']"
_FORMATS = 'accepted: JPEG, PNG and what else OpenCV reads'


def how_cut_off(content: bytes) -> str:
    """What is missing of an image file; '' if it is whole, or of a kind without an end mark.

    Args:
        content (bytes): The file. JPEG, PNG and WebP have an end that can be found; what else is
            cut off is left to the decoder.
    """
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
    """Whether an end mark follows a scan; a thumbnail in the header has one of its own."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return True  # Not as it should be: the decoder will say what it thinks of it.
        kind = content[at + 1]
        if kind == 0xFF:  # Fill.
            at += 1
            continue
        if kind == _END_OF_IMAGE:
            return True
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
        if kind == _START_OF_SCAN:
            found = _MARKER.search(content, at)
            if found is None:
                return False
            at = found.start()
    return content[at : at + 2] == b'\xff\xd9'


def _compare_sizes(
    load: LoadCheckedImage, path: str, content: bytes, img: np.ndarray, results: dict
) -> None:
    stated = results.get('height'), results.get('width')
    if None in stated or tuple(stated) == img.shape[:2]:
        return
    height, width = img.shape[:2]
    found = f'{width} x {height} pixels'
    accepted = f'accepted: {stated[1]} x {stated[0]}, as in the annotation'
    if load.color_type == 'color' and stated == (width, height):
        stored = load._decode(path, content, 'color_ignore_orientation')
        if stored.shape[:2] == stated:
            found += f' once turned by its EXIF orientation, {height} x {width} as stored'
            accepted += (
                '; where annotations are for images as stored, set color_type='
                "'color_ignore_orientation' of LoadImageFromFile"
            )
    raise BadImageError(path, found, accepted)
