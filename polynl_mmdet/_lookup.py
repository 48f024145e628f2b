"""Lets mmengine resolve ``_base_ = 'polynl_mmdet::...'``.

mmengine resolves such names only for the packages in one dictionary of its own, and it reads
``_base_`` before it runs ``custom_imports``. An installed polynl_mmdet therefore carries a
one-line ``.pth`` file that runs :func:`teach_mmengine_when_imported` at start-up; it imports
nothing but waits for mmengine. This file must stand alone: it runs before the package does.
"""

import importlib.abc
import importlib.util
import sys

_TARGET = 'mmengine.config.utils'


def teach(config_utils):
    """Enter this package in ``MODULE2PACKAGE`` of the given mmengine module."""
    # The value is looked up as a distribution first and as a module then. A distribution's path
    # is wrong for an editable install, so the value names a module: mmengine takes its folder.
    config_utils.MODULE2PACKAGE.setdefault('polynl_mmdet', 'polynl_mmdet.version')


class _Waiter(importlib.abc.MetaPathFinder):
    """Steps in once, when the module that holds the dictionary is imported."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            teach(module)

        spec.loader.exec_module = exec_module
        return spec


def teach_mmengine_when_imported():
    """Enter this package in mmengine's dictionary now, or as soon as mmengine is imported."""
    if _TARGET in sys.modules:
        teach(sys.modules[_TARGET])
    elif not any(type(finder).__name__ == '_Waiter' for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiter())
