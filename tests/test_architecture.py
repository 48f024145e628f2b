"""Imports point one way: from what is on top of a floor to what it stands on."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from graphlib import TopologicalSorter

import polynl_mmdet

PACKAGE = Path(polynl_mmdet.__file__).parent
# What a folder may import of the others; `cli` and the package's own files are on top.
ALLOWED = {
    'ops': set(),
    'layers': {'ops'},
    'models': {'ops', 'layers'},
    'wider_face': set(),
    'datasets': {'wider_face'},
    'evaluation': {'wider_face', 'datasets'},
    'engine': {'ops', 'datasets'},
    'deploy': {'ops', 'layers', 'models'},
    'visualization': {'wider_face'},
}
EVERYWHERE = {'errors'}
MM = {'mmcv', 'mmdet', 'mmengine'}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob('*.py'))


def imported(module: Path) -> set[str]:
    """Dotted names of what a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [PACKAGE.name, *module.parts][: -node.level] if node.level else []
            start = '.'.join([*above, *filter(None, [node.module])])
            found.update(f'{start}.{alias.name}' for alias in node.names)
    return found


def folder_of(name: str) -> str | None:
    """The folder of the package, with slashes, that an imported name is in; '' is its own."""
    head, *parts = name.split('.')
    if head != PACKAGE.name:
        return None
    while parts and not (PACKAGE / Path(*parts)).is_dir():
        parts.pop()
    return '/'.join(parts)


@pytest.mark.parametrize('floor', ALLOWED)
def test_no_floor_imports_a_higher_one(floor):
    for module in MODULES:
        if module.parts[0] == floor:
            ours = {n.split('.')[1] for n in imported(module) if n.split('.')[0] == PACKAGE.name}
            assert ours <= ALLOWED[floor] | EVERYWHERE | {floor}, module


def test_folders_are_on_a_floor_or_on_top():
    folders = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert folders == {*ALLOWED, 'cli'}


def test_no_folders_import_each_other_in_a_circle():
    needs: dict[str, set[str]] = {}
    for module in MODULES:
        folder = module.parent.as_posix()
        others = {folder_of(name) for name in imported(module)} - {None, '', folder}
        if module.name == '__init__.py':  # It names what the folders below it have.
            others = {other for other in others if not other.startswith(f'{folder}/')}
        if folder != '.':
            needs.setdefault(folder, set()).update(others)
    assert needs['layers'] == {'ops'}
    TopologicalSorter(needs).prepare()  # Raises CycleError, with the circle.


@pytest.mark.parametrize(('folder', 'forbidden'), [('ops', None), ('wider_face', MM)])
def test_what_needs_no_other_package_imports_none(folder, forbidden):
    """The operator needs torch alone, the WIDER FACE protocol nothing of mm*."""
    for module in MODULES:
        if module.parts[0] == folder:
            heads = {name.split('.')[0] for name in imported(module)} - {PACKAGE.name}
            bad = heads & forbidden if forbidden else heads - {'torch', *sys.stdlib_module_names}
            assert not bad, module
