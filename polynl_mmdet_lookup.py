"""Let mmengine resolve ``_base_ = 'polynl_mmdet::...'`` before this package is imported.

mmengine resolves such names for the packages in one dictionary of its own, and it reads ``_base_``
before it runs ``custom_imports``. ``polynl_mmdet_lookup.pth``, installed beside this file, imports
it when Python starts; it imports nothing, and waits for mmengine.
"""

import sys


class ConfigScopeFinder:
    """Finds no module: the first import after that of mmengine's dictionary completes it."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Register the scope, once, if the dictionary is there."""
        scopes = getattr(sys.modules.get('mmengine.config.utils'), 'MODULE2PACKAGE', None)
        if scopes is None or cls not in sys.meta_path:
            return None
        sys.meta_path.remove(cls)
        register_config_scope(scopes)
        # The import system is going through sys.meta_path, and would leave out the finder that
        # has just moved to this one's place.
        return sys.modules['importlib.util'].find_spec(name)


def register_config_scope(scopes):
    """Enter this package in mmengine's dictionary ``MODULE2PACKAGE``."""
    # The value is looked up as a distribution first and as a module then. A distribution's path
    # is wrong for an editable install, so the value names a module: mmengine takes its folder.
    scopes.setdefault('polynl_mmdet', 'polynl_mmdet.version')


sys.meta_path.insert(0, ConfigScopeFinder)
