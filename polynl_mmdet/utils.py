"""The function that mmengine's hub looks for under this name."""

from __future__ import annotations

import warnings


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register all of mmdet and of this package, as every OpenMMLab package offers it.

    ``mmengine.hub.get_model('polynl_mmdet::...')`` calls it, having made this package's name the
    default scope. No registry has that name: models are built in mmdet's.

    Args:
        init_default_scope (bool): Whether names are looked up in mmdet's registries from now on.
            Defaults to True.
    """
    import mmdet.utils

    import polynl_mmdet  # noqa: F401

    with warnings.catch_warnings():
        # mmdet's warns whenever another scope was current, which is what it is called for.
        warnings.filterwarnings('ignore', message='The current default scope')
        mmdet.utils.register_all_modules(init_default_scope)
