"""Registries of scope 'polynl_mmdet', a child of each of mmdet's.

mmengine builds a model from ``_base_ = 'polynl_mmdet::...'`` in the scope of that name. The package
registers its own modules in mmdet's registries, where these children find them and mmdet's.
"""

import mmdet.registry
from mmengine.registry import Registry

for _name, _parent in list(vars(mmdet.registry).items()):
    if isinstance(_parent, Registry) and _parent.scope == 'mmdet':
        globals()[_name] = Registry(
            _parent.name,
            parent=_parent,
            scope='polynl_mmdet',
            locations=['mmdet.engine', 'polynl_mmdet'],
        )
