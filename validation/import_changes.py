"""Import the package in a process that uses torch and mmdet, and print all that it changed there.

    python validation/import_changes.py

Compared, before and after: every attribute of every loaded module and of the classes in it, the
content of module-level dicts, lists and sets, registries, loggers, warnings filters,
``sys`` and ``os.environ``, and the states of all random generators. New modules are not counted.
The exit status is 1 if anything but additions to registries, to torch's list of safe globals, to
mmengine's file backends and to its config scopes was found.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from types import ModuleType

import mmdet.apis
import numpy as np
import torch
from mmdet.utils import register_all_modules
from mmengine.registry import Registry

# Where the package may add names; nothing may be taken away or replaced.
MAY_GROW = (
    'torch._weights_only_unpickler._marked_safe_globals_set',
    'mmengine.config.utils.MODULE2PACKAGE',
    'mmengine.fileio.backends.registry_utils.backends',
)
_IMPORT_MACHINERY = ('sys.modules', 'sys.path_importer_cache')


def snapshot(modules: list[str]) -> dict[str, object]:
    """Return a value for every place in the process that an import could change."""
    found: dict[str, object] = {
        'os.environ': dict(os.environ),
        'warnings.filters': list(warnings.filters),
        'random state': random.getstate(),
        'NumPy random state': str(np.random.get_state()),
        'torch random state': torch.get_rng_state().tolist(),
        'torch threads': torch.get_num_threads(),
        'torch default dtype': torch.get_default_dtype(),
    }
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            found[f'logger {name}'] = logger.level, list(logger.handlers), logger.propagate
    for name in modules:
        for key, value in list(vars(sys.modules[name]).items()):
            place = f'{name}.{key}'
            if place in _IMPORT_MACHINERY:
                continue
            found[place] = _content(value)
            if isinstance(value, type) and value.__module__ == name:
                found.update(
                    {f'{place}.{k}': id(v) for k, v in vars(value).items() if k[:5] != '__abs'}
                )
    return found


def _content(value: object) -> object:
    """Return the entries of a container, else the identity of a value."""
    if isinstance(value, Registry):
        return {key: id(entry) for key, entry in value.module_dict.items()}
    if isinstance(value, dict):
        return {repr(key): id(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [id(entry) for entry in value]
    if isinstance(value, (set, frozenset)):
        return {repr(entry): 0 for entry in value}
    return id(value)


def is_growth(before: object, after: object) -> bool:
    """Return whether all entries of a dict are as they were."""
    return isinstance(before, dict) and before.items() <= after.items()


def main() -> int:
    """Print the changes; 1 if there is one that is not named above."""
    register_all_modules(init_default_scope=False)
    modules = [name for name, module in sys.modules.items() if isinstance(module, ModuleType)]
    before = snapshot(modules)
    import polynl_mmdet  # noqa: F401

    after = snapshot(modules)
    bad = 0
    registries = {}
    for place, value in after.items():
        if place not in before:
            # A submodule that is loaded becomes an attribute of its package.
            expected = place in sys.modules
        elif value == before[place]:
            continue
        elif isinstance(value, dict) and is_growth(before[place], value):
            added = sorted(value.keys() - before[place].keys())
            owner, _, attribute = place.rpartition('.')
            registry = isinstance(getattr(sys.modules.get(owner), attribute, None), Registry)
            if registry:
                registries[id(getattr(sys.modules[owner], attribute))] = place, added
                continue
            expected = place in MAY_GROW
            print(f'{place}: + {", ".join(added)}')
        else:
            expected = False
        if not expected:
            bad += 1
            print(f'CHANGED {place}')
    for place in before.keys() - after.keys():
        bad += 1
        print(f'GONE {place}')
    for place, added in registries.values():
        print(f'{place}: + {", ".join(added)}')
    print(f'{len(before)} places compared, {bad} changed')
    return int(bad > 0)


if __name__ == '__main__':
    assert mmdet.apis
    raise SystemExit(main())
