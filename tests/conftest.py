"""Fixtures that several folders share."""

from __future__ import annotations

import logging
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tool_server import ToolServer, hasten_configs

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """Path: the project's root."""
    return ROOT


@pytest.fixture(scope='session')
def data_root() -> Path:
    """Path: real images and ground truth, from POLYNL_DATA or ../shared/data."""
    path = Path(os.environ.get('POLYNL_DATA', ROOT.parent / 'shared' / 'data'))
    if not path.is_dir():
        pytest.skip(f'no real data at {path}; set POLYNL_DATA')
    return path


@pytest.fixture(scope='session')
def tool_server():
    """ToolServer: runs Python command lines without waiting for their imports."""
    server = ToolServer()
    yield server
    server.close()


@pytest.fixture
def run_tool(tool_server):
    """Callable: runs a tool of the project in a process of its own.

    ``run_tool('train.py', *args, cwd=None, env=None)`` gives the CompletedProcess, its output as
    text with stderr in it. The status is not checked.
    """

    def run(name, *args, cwd=ROOT, env=None, timeout=600):
        words = [str(ROOT / 'tools' / name), *map(str, args)]
        if name.endswith('.py'):
            done = tool_server.run(words, cwd=str(cwd), env=env)
            return subprocess.CompletedProcess(words, *done)
        return subprocess.run(
            ['bash', *words],
            cwd=cwd,
            env={**os.environ, 'PYTHONWARNINGS': 'ignore', **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(autouse=True, scope='session')
def _hasten():
    hasten_configs()


@pytest.fixture(autouse=True)
def _seed():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _quiet():
    from mmengine.logging import MMLogger

    # mmengine logs every parameter's initialisation.
    MMLogger.get_current_instance().setLevel(logging.ERROR)


@pytest.fixture(autouse=True)
def mmdet_scope():
    """Builds by name find mmdet's registries, as in a Runner."""
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
