"""Poly-NL and linear-cost non-local layers for OpenMMLab models.

``custom_imports = dict(imports=['polynl_mmdet'])`` registers all that the environment can hold:
with mmengine the hooks, with mmcv the layers, with mmdet the models, datasets and metrics too.
``polynl_mmdet.ops`` needs PyTorch alone. Nothing of the host is replaced: names are added to
registries, to torch's list of safe globals, and this package's to mmengine's config scopes.
"""

import warnings
from importlib import import_module
from importlib.util import find_spec

from .version import __version__

# What registers something, each part after those it imports.
_PARTS = ('engine', 'layers', 'models', 'datasets', 'evaluation', 'visualization')
_INSTALL_HINT = (
    "to install versions that fit each other: pip install 'torch>=2.6' 'setuptools>=77.0.3,<81' "
    'wheel ninja psutil && pip install --no-build-isolation mmcv==2.1.0 && '
    'pip install mmengine==0.10.7 mmdet==3.3.0'
)


def guard_checkpoints() -> None:
    """Let mmengine load no checkpoint of this process that could run code.

    See :func:`polynl_mmdet.engine.checkpoints.guard.guard_checkpoints`.
    """
    from .engine import checkpoints

    checkpoints.guard_checkpoints()


def _register_parts() -> None:
    """Import what registers something; warn of what is missing or fails."""
    if not any(map(find_spec, ('mmengine', 'mmcv', 'mmdet'))):
        return
    left_out, reasons = [], []
    for part in _PARTS:
        try:
            import_module(f'{__name__}.{part}')
        # Broken packages raise anything: ImportError, mmdet's AssertionError of versions, OSError.
        except Exception as error:
            left_out.append(part)
            reason = ' '.join(str(error).split()) or type(error).__name__
            reasons += [reason] if reason not in reasons else []
    if left_out:
        warnings.warn(
            f'polynl_mmdet is without {", ".join(left_out)} ({"; ".join(reasons)}); '
            f'{_INSTALL_HINT}',
            stacklevel=3,
        )
    if 'engine' not in left_out:
        # For `_base_ = 'polynl_mmdet::...'`; the installed polynl_mmdet_lookup.pth does it earlier.
        from mmengine.config.utils import MODULE2PACKAGE

        MODULE2PACKAGE.setdefault('polynl_mmdet', 'polynl_mmdet.version')


_register_parts()

__all__ = ['__version__', 'guard_checkpoints']
