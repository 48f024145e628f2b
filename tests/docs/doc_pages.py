"""Parse the documentation: code blocks, commands, headings and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    ROOT / 'configs/README.md',
    *sorted((ROOT / 'docs').glob('*.md')),
]


class Block(NamedTuple):
    """A fenced or indented code block: its page, first line (from 1), language and text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """str: for messages and test ids."""
        return f'{self.page.relative_to(ROOT)}:{self.line}'


def blocks(page: Path) -> list[Block]:
    """Return every code block of a page."""
    found, fence, start, language, lines = [], None, 0, '', []
    previous_blank = True
    for number, line in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
        mark = re.match(r'\s*(```+|~~~+)(\S*)', line)
        if fence is not None:
            if mark and mark[1].startswith(fence) and not mark[2]:
                found.append(Block(page, start, language, '\n'.join(lines)))
                fence = None
            else:
                lines.append(line)
        elif mark:
            fence, language, start, lines = mark[1], mark[2], number + 1, []
        elif re.match(r' {4}.*\S', line) and (previous_blank or language == 'indented'):
            if language != 'indented':
                language, start, lines = 'indented', number, []
            lines.append(line[4:])
        elif language == 'indented':
            found.append(Block(page, start, language, '\n'.join(lines)))
            language = ''
        previous_blank = not line.strip()
    if fence is not None:
        raise ValueError(f'{page}: a code block that does not end')
    if language == 'indented':
        found.append(Block(page, start, language, '\n'.join(lines)))
    return found


def prose(page: Path) -> str:
    """Return a page's text without its fenced blocks."""
    return re.sub(r'^\s*(```+).*?^\s*\1\s*$', '', page.read_text('utf-8'), flags=re.M | re.S)


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub makes them."""
    found: set[str] = set()
    for title in re.findall(r'^#{1,6}\s+(.+?)\s*#*$', prose(page), flags=re.M):
        title = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', title)
        slug = re.sub(r'[^\w\- ]', '', title.strip().lower()).replace(' ', '-')
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f'{slug}-{number}'
        found.add(unique)
    return found


def links(page: Path) -> list[str]:
    """Return the targets of every link and image of a page."""
    text = re.sub(r'`[^`]*`', '', prose(page))
    found = re.findall(r'!?\[[^\]]*\]\(([^)\s]+)[^)]*\)', text)
    found += re.findall(r'^\[[^\]]+\]:\s*(\S+)', text, flags=re.M)
    return found + re.findall(r'(?:src|href)="([^"]+)"', text)
