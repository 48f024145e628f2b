"""Poly-NL and linear-cost non-local layers for OpenMMLab models.

``custom_imports = dict(imports=['polynl_mmdet'])`` registers all that the environment can hold:
with mmengine and mmcv the layers, with mmdet the models, datasets and metrics too.
``polynl_mmdet.ops`` needs PyTorch alone.
"""

from ._lookup import teach_mmengine_when_imported
from ._stack import SUPPORTED, present, require
from .version import __version__

teach_mmengine_when_imported()

if any(present(name) for name in SUPPORTED):
    require('mmengine', 'mmcv')
    from . import engine, layers

    if present('mmdet'):
        require('mmdet')
        from . import datasets, evaluation, models

__all__ = ['__version__']
