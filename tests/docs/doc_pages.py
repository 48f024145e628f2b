"""Parse the documentation: code blocks, headings and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for pattern in ('README.md', 'CONTRIBUTING.md', 'docs/*.md', 'configs/**/README.md',
                    'studies/**/README.md', 'benchmarks/**/README.md')
    for path in sorted(ROOT.glob(pattern))
]  # fmt: skip


class Step(NamedTuple):
    """A command line or a Python block: its page, line, whether it is Python, and its text."""

    page: Path
    line: int
    python: bool
    text: str


def blocks(page: Path) -> list[tuple[int, str, list[str]]]:
    """Return the first line (from 1), language and lines of each fenced block of a page."""
    found, fence = [], None
    for number, line in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
        mark = re.match(r'\s*(```+)(\S*)', line)
        if mark and fence is None:
            fence = mark[1]
            found.append((number + 1, mark[2], []))
        elif mark and mark[1] == fence and not mark[2]:
            fence = None
        elif fence is not None:
            found[-1][2].append(line)
    assert fence is None, f'{page}: a block that does not end'
    return found


def steps(page: Path) -> list[Step]:
    """Return the commands and Python blocks of a page in their order."""
    found = []
    for start, language, lines in blocks(page):
        if language == 'python':
            found.append(Step(page, start, True, '\n'.join(lines)))
        elif language in ('shell', 'bash', 'console'):
            if language == 'console':  # The other lines are what a command prints.
                lines = [line[2:] if line.startswith('$ ') else '' for line in lines]
            number = start
            for command in re.sub(r'\\\n', '\\\0', '\n'.join(lines)).split('\n'):
                text = re.sub(r'^#.*|\s+#\s.*', '', command.replace('\\\0', '\\\n')).strip()
                if text:
                    found.append(Step(page, number, False, text))
                number += 1 + command.count('\0')
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
        assert slug not in found, f'{page}: two headings {title!r}'
        found.add(slug)
    return found


def links(page: Path) -> list[str]:
    """Return the targets of every link and image of a page."""
    text = re.sub(r'`[^`]*`', '', prose(page))
    found = re.findall(r'!?\[[^\]]*\]\(([^)\s]+)[^)]*\)', text)
    return found + re.findall(r'(?:src|href)="([^"]+)"', text)
