"""Run functions in forked processes, which do not need to import anything again."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.utils import register_all_modules

import polynl_mmdet.cli.mmdet_tools  # noqa: F401  The children need not import it.
from polynl_mmdet.errors import one_line_errors

ROOT = Path(__file__).resolve().parent.parent
register_all_modules(init_default_scope=False)


def start(function: Callable[[], object], log: Path, folder: Path | None = None) -> int:
    """Run a function in a new process.

    Args:
        function (Callable): Called once. A SystemExit gives the exit status.
        log (Path): Receives all that the process prints.
        folder (Path, optional): The process's current folder. Defaults to None: this one's.

    Returns:
        int: The process, leader of a process group of its own.
    """
    if process := os.fork():
        return process
    status = 1
    try:
        os.setsid()
        torch.set_num_threads(1)  # The parent's threads do not survive a fork.
        sys.stdout = sys.stderr = open(log, 'w', buffering=1, encoding='utf-8')  # noqa: SIM115
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        os.chdir(folder or '.')
        with one_line_errors():
            function()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def run_tool(name: str, *arguments: object) -> None:
    """Run a script of ``tools/`` in this process, as its command line would.

    Args:
        name (str): The script's file name.
        *arguments (object): Its arguments.
    """
    sys.argv = [name, *map(str, arguments)]
    runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
