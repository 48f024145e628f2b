"""Importing the package in another process replaces nothing there."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import mmengine.config.utils
from mmdet.utils import register_all_modules

register_all_modules(init_default_scope=False)
modules = {name: module for name, module in sys.modules.items() if name != '__main__'}


def snapshot():
    found = {}
    for name, module in modules.items():
        for key, value in list(vars(module).items()):
            found[name, key] = value
            if isinstance(value, type) and value.__module__ == name:
                found.update({(name, key, k): v for k, v in list(vars(value).items())})
    return found


snapshot()  # Reading some attributes sets others.
before = snapshot()
import polynl_mmdet

after = snapshot()
for place, value in before.items():
    if after.get(place) is not value and not place[-1].startswith('_abc_'):
        if place[1] != '_marked_safe_globals_set':  # torch's own list, added to by torch
            print('replaced', *place)
"""


def test_the_import_replaces_nothing():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT], capture_output=True, text=True, check=True
    )
    assert 'replaced' not in done.stdout
