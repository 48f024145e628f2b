"""Import the package where mmdet is in use, and print all that this changed in the process.

    python validation/import_changes.py

Compared, before and after: every attribute of every loaded module and of the classes in it, the
entries of module-level containers and registries, loggers, warnings filters, ``os.environ`` and
the states of the random generators. The exit status is 1 if anything was replaced, removed or
added but entries of registries, of torch's list of safe globals, of mmengine's file backends and of
its config packages.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import warnings

import mmengine.config.utils
import mmengine.fileio.backends.registry_utils
import numpy as np
import torch
from mmdet.utils import register_all_modules
from mmengine.registry import Registry

# Caches of the interpreter, and what holds this script's own warnings.
IGNORED_MODULES = ('__main__', '__mp_main__', 're', 'encodings', 'platform')
IGNORED = ('sys.modules', 'sys.path_importer_cache')


def snapshot(modules: list[str]) -> dict[str, object]:
    """Return a value for each place in the process that an import could change."""
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
            if place not in IGNORED:
                found[place] = entries(value)
            if isinstance(value, type) and value.__module__ == name:
                found.update(
                    {f'{place}.{k}': id(v) for k, v in vars(value).items() if k[:5] != '_abc_'}
                )
    return found


def entries(value: object) -> object:
    """Return what a container holds, by names and identities; of other values the identity."""
    if isinstance(value, Registry):
        value = value.module_dict
    if isinstance(value, dict):
        return {str(key): id(entry) for key, entry in value.items()}
    if isinstance(value, (set, frozenset)):
        return {e[1] if isinstance(e, tuple) and len(e) == 2 else str(e): hash(e) for e in value}
    return [id(entry) for entry in value] if isinstance(value, (list, tuple)) else id(value)


def may_grow(place: str) -> bool:
    """Return whether the package may add entries to the container at a place."""
    module, _, name = place.rpartition('.')
    value = getattr(sys.modules.get(module), name, None)
    dicts = mmengine.fileio.backends.registry_utils.backends, mmengine.config.utils.MODULE2PACKAGE
    return (
        isinstance(value, Registry)
        or any(value is entry for entry in dicts)
        or place == 'torch._weights_only_unpickler._marked_safe_globals_set'
    )


def main() -> int:
    """Print the changes; 1 if there is one that must not be."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    register_all_modules(init_default_scope=False)
    modules = [name for name in sys.modules if name.partition('.')[0] not in IGNORED_MODULES]
    modules = [name for name in modules if hasattr(sys.modules[name], '__dict__')]
    snapshot(modules)  # Reading a value may set others: matplotlib then chooses its back end.
    # The installed start-up file has entered this already, and the import would find it there.
    mmengine.config.utils.MODULE2PACKAGE.pop('polynl_mmdet', None)
    before = snapshot(modules)
    import polynl_mmdet  # noqa: F401

    after = snapshot(modules)
    bad = [f'{place} is gone' for place in before.keys() - after.keys()]
    grown: dict[str, str] = {}
    for place, value in after.items():
        if place not in before:
            # A module that is loaded becomes an attribute of its package.
            bad += [] if place in sys.modules else [f'{place} is new']
        elif value != before[place]:
            if not may_grow(place) or not before[place].items() <= value.items():
                bad.append(f'{place} is another')
                continue
            # The same container has several names; the shortest is shown.
            added = ', '.join(sorted(value.keys() - before[place].keys()))
            grown[added] = min(place, grown.get(added, place), key=len)
    for added, place in grown.items():
        print(f'{place}: + {added}')
    print(f'{len(before)} places compared, {len(bad)} changed', *bad, sep='\n')
    return int(bool(bad))


if __name__ == '__main__':
    raise SystemExit(main())
