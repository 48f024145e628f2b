"""Every command and Python block of the documentation runs as written, or is listed here."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, Step, steps
from tool_server import ToolServer
from workshop import make_clone, make_store, place

# What is not run: a pattern of the whole command or block, and the reason.
LISTED = {
    r'(apt-get|pip|mim|git clone|conda) .*|pre-commit .*': 'changes the machine or environment',
    r'([A-Z_]+=.+ )?make (install|lint|test).*': 'installs, or runs these tests: CI does',
    r'([A-Z_]+=.+ )?make demo.*': 'minutes: CI runs it, and tests/demo its parts',
    r'(GPUS=\d+ )?tools/slurm_.*': 'needs a Slurm cluster',
    r'python -m studies\.(?!.*--(table|help)).*': 'takes hours; tests/studies runs it on less',
    r'python benchmarks/.*': 'minutes of an idle machine; tests/benchmarks runs them with --quick',
    r'tools/dist_.*': 'as many GPUs as it names; tests/distributed runs it with two processes',
}
CONFIG = re.compile(r'^_base_ = |read_base\(\)', re.MULTILINE)
READ_CONFIG = """
import sys
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
config = Config.fromfile(sys.argv[1])
register_all_modules()
MODELS.build(config.model)
"""
RUN = [page for page in PAGES if steps(page)]


def reason(step: Step) -> str | None:
    """Return why a step is not run, or None."""
    if step.python:
        missing = [name for name in re.findall(r'timm|mmseg', step.text) if not find_spec(name)]
        return f'{missing[0]} is not installed' if missing else None
    fits = (why for pattern, why in LISTED.items() if re.fullmatch(pattern, step.text, re.DOTALL))
    return next(fits, None)


def script(page: Path) -> str:
    """Return the page as a shell script: its commands and blocks in their order."""
    lines = ['set -eo pipefail', "PS4='+ $SECONDS s: '", 'set -x']
    for step in steps(page):
        if reason(step):
            continue
        lines.append(f': {page.name}:{step.line}')
        if not step.python:
            lines.append(step.text)
            continue
        named = re.match(r'# ([\w./]+\.py)\n', step.text)
        name = named[1] if named else f'block_{step.line}.py'
        lines += [f"mkdir -p $(dirname {name}); cat > {name} <<'END'", step.text, 'END']
        if CONFIG.search(step.text):
            lines.append(f'python -c "$READ_CONFIG" {name}')
        elif not named:
            lines.append(f'python {name}')
    return '\n'.join(lines) + '\n'


@pytest.fixture(scope='module')
def setting(tmp_path_factory):
    """The folder of what all pages share, and that of the programs."""
    server = ToolServer(shorten=True)
    yield make_store(tmp_path_factory.mktemp('store')), server.folder
    server.close()


@pytest.mark.slow
@pytest.mark.parametrize('page', RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(page, setting, tmp_path):
    (store, programs), text = setting, script(page)
    if re.search(r'\b(tools|configs|demo|benchmarks|studies)[/.]', text):
        make_clone(tmp_path)
    place(store, tmp_path)
    environment = {
        **os.environ,
        'PATH': f'{programs}:{os.environ["PATH"]}',
        'PYTHON_EXEC': str(programs / 'python'),
        'READ_CONFIG': READ_CONFIG,
        'TORCH_HOME': str(store / 'torch'),
        'https_proxy': 'http://127.0.0.1:9',  # Nothing is downloaded.
        'MPLBACKEND': 'agg',
        'OMP_NUM_THREADS': '1',
    }
    log = tmp_path / 'output.txt'
    with log.open('w') as output:
        status = subprocess.call(
            ['bash', '-c', text], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output,
        )  # fmt: skip
    if status:
        pytest.fail(f'{page.name}: {log.read_text()[-4000:]}', pytrace=False)


def test_every_pattern_is_used():
    texts = [step.text for page in PAGES for step in steps(page) if not step.python]
    for pattern in LISTED:
        assert any(re.fullmatch(pattern, text, re.DOTALL) for text in texts), pattern
