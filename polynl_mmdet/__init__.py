"""Poly-NL, a non-local layer of linear cost, for OpenMMLab models and plain PyTorch.

Importing the package registers what the environment can hold: with mmengine the layers, with mmdet
the models, datasets, metrics and hooks too. Nothing of theirs is replaced.
"""

import warnings
from importlib.util import find_spec

from .version import __version__


def _register() -> None:
    """Add names to the registries of what is installed."""
    if find_spec('mmengine') is None:
        return
    try:
        from mmengine.config.utils import MODULE2PACKAGE
        from mmengine.utils import is_installed

        from . import layers

        # For `_base_ = 'polynl_mmdet::...'`; after `pip install` it is there from the start.
        MODULE2PACKAGE.setdefault('polynl_mmdet', 'polynl_mmdet.version')
        if find_spec('mmdet') is not None:
            from . import datasets, engine, evaluation, models, visualization
        # mmengine imports it when it reads such a `_base_`; the onedl fork does not.
        uses_pkg_resources = 'pkg_resources' in is_installed.__code__.co_names
        if uses_pkg_resources and find_spec('pkg_resources') is None:
            warnings.warn(
                "polynl_mmdet: mmengine needs pkg_resources for `_base_ = 'mmdet::...'`: "
                "pip install 'setuptools<81'",
                stacklevel=3,
            )
    # ImportError, mmdet's AssertionError about mmcv's version, OSError of compiled operators, ...
    except Exception as error:
        reason = ' '.join(str(error).split())
        warnings.warn(f'polynl_mmdet: only its layers can be used ({reason})', stacklevel=3)


_register()

__all__ = ['__version__']
