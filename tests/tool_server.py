"""A process that has done the slow imports, and runs each command line in a fork of itself."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path


class ToolServer:
    """Runs scripts one after another, without waiting for the imports of each."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, 'PYTHONWARNINGS': 'ignore', 'OMP_NUM_THREADS': '1'},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, **job: object) -> tuple[int, str]:
        """Run a job in a process of its own.

        Args:
            **job: ``argv`` (script and arguments), ``cwd``, ``env`` (added to the environment), and
                ``timeout`` (seconds).

        Returns:
            tuple[int, str]: Exit status and output, stdout and stderr.
        """
        self.process.stdin.write(json.dumps(job) + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, 'the process that runs the tools has died'
        status, text = json.loads(answer)
        return status, text

    def close(self) -> None:
        """End the process, whoever else may hold its pipe."""
        self.process.stdin.write('null\n')
        self.process.stdin.close()
        self.process.wait()


def run_job(job: dict) -> int:
    """Run a job in this process and return its exit status."""
    os.chdir(job['cwd'])
    os.environ.update(job.get('env', {}))
    signal.alarm(job.get('timeout', 600))
    try:
        sys.argv = job['argv']
        sys.path[0] = str(Path(job['argv'][0]).resolve().parent)
        runpy.run_path(job['argv'][0], run_name='__main__')
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Read jobs, a line each, and write each one's status and output in a line."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # What the imports print is no answer.
    import mmdet.apis  # noqa: F401
    import torch
    from mmdet.utils import register_all_modules

    import polynl_mmdet  # noqa: F401

    torch.set_num_threads(1)
    register_all_modules()
    for line in sys.stdin:
        job = json.loads(line)
        if job is None:
            return
        with tempfile.TemporaryFile() as output:
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                status = run_job(job)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            _, status = os.waitpid(child, 0)
            output.seek(0)
            text = output.read().decode('utf-8', 'replace')
        answers.write(json.dumps([os.waitstatus_to_exitcode(status), text]) + '\n')
        answers.flush()


if __name__ == '__main__':
    main()
