"""Lets mmengine find the base configs of ``_base_ = 'polynl_mmdet::...'``.

mmengine looks packages up in a dictionary of its own, and reads ``_base_`` before it runs
``custom_imports``. An installed ``polynl_mmdet_lookup.pth`` (see setup.py) imports this module
when Python starts. It imports nothing else: the package is added once mmengine is imported.
"""

import sys


class ConfigLookup:
    """An import finder that finds nothing, and removes itself when its work is done."""

    def find_spec(self, name, path=None, target=None):
        """Add the package at the first import after mmengine's dictionary exists."""
        utils = sys.modules.get('mmengine.config.utils')
        if not hasattr(utils, 'MODULE2PACKAGE') or self not in sys.meta_path:
            return None
        # A module's name: mmengine would take a distribution's folder, wrong if editable.
        utils.MODULE2PACKAGE.setdefault('polynl_mmdet', 'polynl_mmdet.version')
        sys.meta_path.remove(self)
        # Python's loop over the list now skips the next finder.
        from importlib.util import find_spec

        return find_spec(name)


sys.meta_path.insert(0, ConfigLookup())
