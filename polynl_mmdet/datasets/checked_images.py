"""What a dataset does with an image that cannot be used: stop, or leave it out and count it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from polynl_mmdet.datasets.transforms.load_checked_image import BadImageError
from polynl_mmdet.errors import InputError, in_one_line

POLICIES = ('stop', 'skip')
SKIPPED = 'skipped_images'  # Key in a sample's metainfo.
_CHECKED = {
    'LoadImageFromFile': 'LoadCheckedImage',
    'mmdet.LoadImageFromFile': 'LoadCheckedImage',
    'mmcv.LoadImageFromFile': 'LoadCheckedImage',
    'PackDetInputs': 'PackFlatInputs',
    'mmdet.PackDetInputs': 'PackFlatInputs',
}


class CheckedImages:
    """Mixin for mmengine datasets: every image is checked while it is loaded.

    In the pipeline ``LoadImageFromFile`` becomes :class:`LoadCheckedImage` and ``PackDetInputs``
    becomes :class:`PackFlatInputs`, with the same settings.

    Args:
        bad_images (str): 'stop': an image that cannot be used ends the run, with its name and
            what is wrong with it. 'skip': in training another image, drawn at random, takes its
            place; the sample carries what was left out under ``skipped_images`` in its metainfo,
            and ``BadImageHook`` counts it. Not for tests, where an image that is left out would
            change what is measured. Defaults to 'stop'.
        pipeline (Sequence): As in mmengine's ``BaseDataset``.

    Raises:
        InputError: Another policy, 'skip' for a test, or a bad image under 'stop'.
    """

    def __init__(self, *args, bad_images: str = 'stop', pipeline: Sequence = (), **kwargs) -> None:
        if bad_images not in POLICIES:
            raise InputError('bad_images', repr(bad_images), f'accepted: {POLICIES}')
        if bad_images == 'skip' and kwargs.get('test_mode', False):
            raise InputError(
                'bad_images', "'skip' with test_mode=True", "accepted in a test: 'stop'"
            )
        self.bad_images = bad_images
        self._skipped: list[tuple[str, str]] = []
        super().__init__(*args, pipeline=[_checked(step) for step in pipeline], **kwargs)

    def __getitem__(self, idx: int) -> dict:
        """As mmengine's, with what was left out before an image was found."""
        self._skipped = []
        try:
            data = super().__getitem__(idx)
        except Exception as error:
            # mmengine gives up after max_refetch other images, with an error of no class.
            if type(error) is not Exception or not self._skipped:
                raise
            path, reason = self._skipped[-1]
            raise InputError(
                str(self.ann_file),
                f'none of {len(self._skipped)} images tried can be used, last {path}: {reason}',
                "accepted: images under data_prefix['img']",
            ) from None
        if self._skipped and 'data_samples' in data:
            data['data_samples'].set_metainfo({SKIPPED: self._skipped})
        return data

    def prepare_data(self, idx: int) -> dict | None:
        """As mmengine's; None for a bad image under 'skip'."""
        try:
            return super().prepare_data(idx)
        except BadImageError as error:
            bad = error
        except cv2.error as error:
            # An image too flat to be resized, for example.
            bad = BadImageError(
                self.get_data_info(idx)['img_path'],
                f'cannot be transformed ({in_one_line(error, 200)})',
                'accepted: an image that every step of the pipeline leaves at least one pixel of',
            )
        if self.bad_images == 'stop':
            raise BadImageError(self._where(idx, bad.where), bad.found, bad.accepted) from None
        self._skipped.append((bad.where, bad.found))
        return None

    def _where(self, idx: int, path: str) -> str:
        """An image, and the annotation that names it."""
        return f'{self.ann_file}: {path}'


def _checked(step: dict | object) -> dict | object:
    if isinstance(step, dict) and step.get('type') in _CHECKED:
        return {**step, 'type': _CHECKED[step['type']]}
    return step
