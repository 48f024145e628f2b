"""Make mmengine load every checkpoint of a process as :func:`.load.load_checkpoint` does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import mmengine.runner.checkpoint as loaders
import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from .content import check_content
from .load import load_checkpoint, one_line_load_errors, trusts_checkpoints

# They do nothing but give a URL to load_url.
_DOWNLOADERS = (loaders.load_from_http, loaders.load_from_torchvision, loaders.load_from_mmcls)
_FORCE, _FORBID = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_LOCK = threading.RLock()


def guard_checkpoints() -> None:
    """Guard mmengine's ``CheckpointLoader`` in this process: no checkpoint runs code.

    This covers ``load_from``, ``--resume``, ``init_cfg``, ``init_detector``, ``DetInferencer``,
    local files, URLs and remote storage; mmengine alone loads URLs without ``weights_only``, and
    the onedl forks whatever the safe load refuses. Files that torch accepts as safe load as
    before; an error is an :class:`~polynl_mmdet.errors.InputError` in one line.

    Our command-line tools call it; importing the package does not. ``torch.load`` stays as it is,
    also for other threads, except that it is ``weights_only`` while a file of remote storage
    (``s3://`` and the like) is loaded. ``POLYNL_TRUST_CHECKPOINTS=1`` switches all checks off.
    """
    load = CheckpointLoader.load_checkpoint.__func__
    if load.__module__ == __name__:
        return

    def guarded(cls, filename, map_location=None, logger='current'):
        loader = cls._get_checkpoint_loader(filename)
        if loader is loaders.load_from_local:
            print_log(f'Loads checkpoint by local backend from path: {filename}', logger=logger)
            return load_checkpoint(filename, map_location)
        if loader in _DOWNLOADERS or trusts_checkpoints():
            return load(cls, filename, map_location, logger)
        with one_line_load_errors(filename):
            with _weights_only_forced():
                checkpoint = load(cls, filename, map_location, logger)
            check_content(filename, checkpoint)
        return checkpoint

    guarded.__wrapped__ = load
    CheckpointLoader.load_checkpoint = classmethod(guarded)
    loaders.load_url = _load_url


def _load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
) -> Any:
    """Load a URL, or its file in torch.hub's cache, as mmengine's ``load_url`` does.

    torch.hub loads without ``weights_only`` unless told, and unpacks zips of one file.
    """
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    path = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        torch.hub.download_url_to_file(url, path, progress=progress)
    return load_checkpoint(path, map_location)


@contextmanager
def _weights_only_forced() -> Iterator[None]:
    """Use torch's own switch: the loads inside are ``weights_only``, whatever they ask for."""
    with _LOCK:
        before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
        os.environ[_FORCE] = '1'
        try:
            yield
        finally:
            del os.environ[_FORCE]
            os.environ.update({name: value for name, value in before.items() if value is not None})
