"""Links, anchors and paths of the documentation exist, and its blocks name their language."""

from __future__ import annotations

import re

import pytest
from doc_pages import PAGES, ROOT, blocks, headings, links

PAGE = pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@PAGE
def test_links(page):
    for target in links(page):
        if re.match(r'(https?|mailto):', target):
            continue
        path, _, anchor = target.partition('#')
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f'{page.name}: {target} is not there'
        assert place.is_relative_to(ROOT), f'{page.name}: {target} is outside'
        if anchor:
            assert anchor in headings(place), f'{page.name}: {target} has no such heading'
        if place.suffix in ('.png', '.jpg', '.svg'):
            assert place.stat().st_size <= 300_000, target


@PAGE
def test_blocks_name_their_language(page):
    """A block without one is not run: it is a folder tree, or what a program prints."""
    for line, language, lines in blocks(page):
        if language in ('', 'text'):
            command = re.match(r'(python|pip|make|mim|polynl|import|from) ', '\n'.join(lines))
            assert not command, f'{page.name}:{line}: a command without a language'
