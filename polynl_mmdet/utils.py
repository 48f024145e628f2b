"""The function that mmengine's hub looks for under this name."""

from __future__ import annotations

import warnings


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register all modules of mmdet, as the default scope if asked, and of this package."""
    import mmdet.utils

    import polynl_mmdet  # noqa: F401

    with warnings.catch_warnings():
        # mmdet warns if another scope was current, as in ``mmengine.hub.get_model``.
        warnings.filterwarnings('ignore', message='The current default scope')
        mmdet.utils.register_all_modules(init_default_scope)
