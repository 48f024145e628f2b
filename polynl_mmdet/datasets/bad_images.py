"""Images that cannot be used: a dataset stops, or leaves them out and counts them."""

from __future__ import annotations

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio

from polynl_mmdet.datasets.image_files import BadImageError, check_image
from polynl_mmdet.errors import InputError, in_one_line

POLICIES = ('stop', 'skip')
SKIPPED = 'skipped_images'  # Key in a sample's metainfo; BadImageHook counts what is there.
_PLACE = "accepted: images under data_prefix['img']"


class BadImagePolicy:
    """Mixin for mmdet's datasets: image files are checked before the pipeline gets them.

    A file is read for the check and by the pipeline again, which the system's cache answers.

    Args:
        bad_images (str): 'stop': an image that cannot be used ends the run, with its name and
            what is wrong with it. 'skip': in training another image, drawn at random, takes its
            place; the sample carries what was left out under ``skipped_images`` in its metainfo,
            and ``BadImageHook`` counts it. Not for tests, where an image that is left out would
            change what is measured. Defaults to 'stop'.

    Raises:
        InputError: Another policy, or 'skip' for a test.
        BadImageError: A bad image under 'stop', or nothing but bad images under 'skip'.
    """

    def __init__(self, *args, bad_images: str = 'stop', **kwargs) -> None:
        if bad_images not in POLICIES:
            raise InputError('bad_images', repr(bad_images), f'accepted: {POLICIES}')
        if bad_images == 'skip' and kwargs.get('test_mode', False):
            raise InputError(
                'bad_images', "'skip' with test_mode=True", "accepted in a test: 'stop'"
            )
        self.bad_images = bad_images
        self._skipped: list[tuple[str, str]] = []
        super().__init__(*args, **kwargs)

    def __getitem__(self, idx: int) -> dict:
        """Get a sample as mmengine does, with what was left out before an image was found."""
        self._skipped = []
        data = super().__getitem__(idx)
        if self._skipped and 'data_samples' in data:
            data['data_samples'].set_metainfo({SKIPPED: self._skipped})
        return data

    def prepare_data(self, idx: int) -> dict | None:
        """Check an image and run the pipeline; None for a bad image under 'skip'."""
        info = self.get_data_info(idx)
        path = info['img_path']
        try:
            self._check_image(info)
            return self.pipeline(info)
        except BadImageError as error:
            found, accepted = error.found, error.accepted
        except (AssertionError, cv2.error) as error:
            # mmcv asserts that an image was decoded; OpenCV refuses one too flat to be resized.
            if isinstance(error, AssertionError) and 'failed to load image' not in str(error):
                raise
            found = f'cannot be decoded or transformed ({in_one_line(error, 200)})'
            accepted = 'accepted: an image of which every step leaves at least one pixel'
        if self.bad_images == 'stop':
            raise BadImageError(self._where(idx, path), found, accepted)
        self._skipped.append((path, found))
        if len(self._skipped) > self.max_refetch:
            tried = f'none of {len(self._skipped)} images tried can be used'
            raise BadImageError(str(self.ann_file), f'{tried}, last {path}: {found}', _PLACE)
        return None

    def _check_image(self, info: dict) -> None:
        loaders = [t for t in self.pipeline.transforms if isinstance(t, LoadImageFromFile)]
        if not loaders:
            return
        path = info['img_path']
        try:
            content = fileio.get(path, backend_args=loaders[0].backend_args)
        except FileNotFoundError:
            raise BadImageError(path, 'the image is missing', _PLACE) from None
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte.
            reason = getattr(error, 'strerror', None) or str(error)
            raise BadImageError(path, f'cannot be read ({reason})', _PLACE) from None
        stated, color_type = (info.get('height'), info.get('width')), loaders[0].color_type
        check_image(path, content, stated, turned='ignore_orientation' not in color_type)

    def _where(self, idx: int, path: str) -> str:
        """Name an image, and the annotation that names it."""
        return f'{self.ann_file}: {path}'
