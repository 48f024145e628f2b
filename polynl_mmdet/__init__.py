"""Poly-NL and linear-cost non-local layers for OpenMMLab models.

``custom_imports = dict(imports=['polynl_mmdet'])`` registers all that the environment can hold:
with mmengine and mmcv the layers, with mmdet the models, datasets and metrics too.
``polynl_mmdet.ops`` needs PyTorch alone.
"""

from ._lookup import teach_mmengine_when_imported
from ._stack import present, require
from .version import __version__

teach_mmengine_when_imported()

# Importing them registers what they hold.
if any(present(name) for name in ('mmengine', 'mmcv', 'mmdet')):
    require('torch', 'mmengine', 'mmcv')
    from . import engine, layers  # noqa: F401

    if present('mmdet'):
        require('mmdet')
        from . import datasets, evaluation, models, visualization  # noqa: F401

__all__ = ['__version__']
