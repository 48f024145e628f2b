"""Run functions in forked processes, which do not need to import anything again."""

from __future__ import annotations

import gc
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import mmengine.config.config
import torch
from mmdet.utils import register_all_modules

import polynl_mmdet.cli.mmdet_tools  # noqa: F401  The children need not import it,
from polynl_mmdet.errors import one_line_errors

ROOT = Path(__file__).resolve().parent.parent
register_all_modules(init_default_scope=False)
torch.optim.SGD([torch.zeros(1)], lr=1.0)  # nor what an optimizer imports when it is first used.


def start(function: Callable[[], object], log: Path, folder: Path | None = None) -> int:
    """Run a function in a process, the leader of a new group; its output goes to the log."""
    if process := os.fork():
        return process
    status = 1
    try:
        os.setsid()
        gc.freeze()  # Datasets collect garbage; what there was before the fork is none.
        torch.set_num_threads(1)  # The parent's threads do not survive a fork.
        # Laying out the config's text takes longer than a short training.
        mmengine.config.config.FormatCode = lambda text, **_: (text, True)
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
    """Run a script of ``tools/`` in this process, as its command line would."""
    sys.argv = [name, *map(str, arguments)]
    sys.path.insert(0, str(ROOT / 'tools'))
    runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
