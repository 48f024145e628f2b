"""A Python that has done the slow imports: each command line runs in a fork of it.

``ToolServer().folder`` has a ``python``. Called by that name it hands its arguments, folder,
environment and open files to the server, which forks, runs them as Python would, and answers with
the exit status.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    job = json.dumps([__file__, sys.argv[1:], os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [job.encode()], [0, 1, 2])
    sys.exit(int(server.recv(8) or 1))
"""


class ToolServer:
    """Start the server.

    Args:
        shorten (bool): Cap what a training does. Defaults to False.
    """

    def __init__(self, shorten: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp())
        address = str(self.folder / 'socket')
        programs = {
            'python': CLIENT.format(python=sys.executable, address=address),
            'polynl': '#!/bin/sh\nexec python -m polynl "$@"\n',
        }
        for name, text in programs.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, __file__, address, *['shorten'] * shorten],
            env={**os.environ, 'PYTHONWARNINGS': 'ignore', 'OMP_NUM_THREADS': '1'},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout.readline() == b'ready\n'

    def run(
        self, argv: list[str], cwd: str, env: dict[str, str] | None = None, timeout: float = 600
    ) -> tuple[int, str]:
        """Run ``python ARGV``; return its exit status and output, stdout and stderr."""
        done = subprocess.run(
            [self.folder / 'python', *argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout

    def close(self) -> None:
        """End the server and all that it runs."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder)


def hasten_configs() -> None:
    """Read mmdet's hundred metafiles once, not for each base, and leave configs unformatted."""
    from mmengine.config import config, utils

    utils.load = functools.lru_cache(None)(utils.load)
    config.FormatCode = lambda text, **kwargs: (text, False)


def shorten_trainings() -> None:
    """Cap what a training does: one small image per step, few proposals, its last epoch alone."""
    from mmengine.config import Config
    from mmengine.runner import EpochBasedTrainLoop, Runner

    def eighth(size: object) -> object:
        if isinstance(size, (list, tuple)):
            return type(size)(map(eighth, size))
        return size and max(size // 8, 64)

    def shrink(node: object) -> None:
        if isinstance(node, dict):
            if 'batch_size' in node and 'dataset' in node:
                node.update(batch_size=1, num_workers=0, persistent_workers=False)
            for key in {'num', 'max_per_img', 'nms_pre'} & set(node):
                node[key] = min(node[key], 64)
            for key in {'scale', 'scales'} & set(node):
                if 'Resize' in str(node.get('type')):
                    node[key] = eighth(node[key])
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, (dict, list, tuple)):
                shrink(child)

    from_cfg, loop = Runner.from_cfg.__func__, EpochBasedTrainLoop.__init__

    def from_small_cfg(cls: type, cfg: Config) -> Runner:
        shrink(cfg._cfg_dict)
        return from_cfg(cls, cfg)

    def last_epoch(self: EpochBasedTrainLoop, *args: object, **kwargs: object) -> None:
        loop(self, *args, **kwargs)
        self._epoch = self._max_epochs - 1

    Runner.from_cfg = classmethod(from_small_cfg)
    EpochBasedTrainLoop.__init__ = last_epoch


def run(client: str, argv: list[str], folder: str, environment: dict[str, str]) -> int:
    """Do what ``python ARGV`` does in ``folder``, and return its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = client  # Processes that it starts are forks, too.
    sys.path[1:1] = filter(None, environment.get('PYTHONPATH', '').split(':'))
    while argv[0] in ('-u', '-W'):
        del argv[: 1 + (argv[0] == '-W')]
    try:
        if argv[0] == '-c':
            sys.argv, sys.path[0] = ['-c', *argv[2:]], ''
            exec(argv[1], {'__name__': '__main__'})
        elif argv[0] == '-m':
            sys.argv, sys.path[0] = argv[1:], folder
            runpy.run_module(argv[1], run_name='__main__', alter_sys=True)
        else:
            sys.argv, sys.path[0] = argv, str(Path(argv[0]).resolve().parent)
            runpy.run_path(argv[0], run_name='__main__')
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(address: str, shorten: str = '') -> None:
    """Accept jobs until killed."""
    ready = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # What the imports print is no answer.
    import mmdet.apis  # noqa: F401
    from mmengine import hub

    hasten_configs()
    hub.get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    if shorten:
        shorten_trainings()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    print('ready', file=ready, flush=True)
    while True:
        connection, _ = server.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        job, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        for number, file in enumerate(files):
            os.dup2(file, number)
        status = run(*json.loads(job))
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(str(status).encode())
        os._exit(status)


if __name__ == '__main__':
    main(*sys.argv[1:])
