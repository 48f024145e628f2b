"""Links, anchors and paths of the documentation exist."""

from __future__ import annotations

import re

import pytest
from doc_pages import PAGES, ROOT, blocks, headings, links

PAGE = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


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


@PAGE
def test_images_are_small(page):
    """No image that a page shows is larger than 300 KB."""
    for target in links(page):
        place = page.parent / target
        if target.endswith(('.png', '.jpg', '.svg')) and not target.startswith('http'):
            assert place.stat().st_size <= 300_000, target


@PAGE
def test_blocks_say_their_language(page):
    """Shell and Python blocks name their language, so that the tests run them."""
    for block in blocks(page):
        if block.language in ('', 'text', 'indented'):
            first = block.text.split(maxsplit=1)[0] if block.text.split() else ''
            shell = block.language != 'indented' and first in ('python', 'pip', 'make', 'mim')
            assert not shell, f'{block.where}: a command without a language'
            python = re.match(r'(import|from) \w+', block.text)
            assert not python, f'{block.where}: unmarked Python'
