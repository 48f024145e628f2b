"""Imports point one way: a folder imports those that it stands on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / 'polynl_mmdet'
# From the ground up. The package's own files are on top.
ALLOWED = {
    'ops': set(),
    'layers': {'ops'},
    'models': {'ops', 'layers'},
    'wider_face': set(),
    'datasets': {'wider_face'},
    'evaluation': {'wider_face', 'datasets'},
    'engine': {'ops', 'datasets'},
    'deploy': {'ops', 'models', 'engine'},
    'visualization': {'wider_face'},
}


def imports(folder: str) -> set[tuple[str, str]]:
    """(package, its first part) of all imports of a folder, in functions too."""
    found = set()
    for path in (PACKAGE / folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                found.update(tuple((f'{a.name}.').split('.')[:2]) for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
                for alias in node.names:
                    name = [*start, *(node.module or '').split('.'), alias.name]
                    found.add(tuple([*filter(None, name), ''][:2]))
    return found


def test_every_folder_has_its_place():
    folders = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert folders == set(ALLOWED)
    seen = set()
    for folder, below in ALLOWED.items():
        assert below <= seen  # No circles.
        seen.add(folder)


@pytest.mark.parametrize('folder', ALLOWED)
def test_no_folder_imports_upward(folder):
    ours = {part for package, part in imports(folder) if package == PACKAGE.name}
    assert ours <= ALLOWED[folder] | {folder, 'errors'}
