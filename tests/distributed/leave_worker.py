"""One of torchrun's processes: a step and a collective, then out of the group."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path

import torch
from mmengine.config import Config
from torch import distributed, nn

from polynl_mmdet.cli import mmdet_tools


def gloo_threads():
    names = []
    for name in Path('/proc/self/task').glob('*/comm'):
        with contextlib.suppress(OSError):  # It has just ended.
            names.append(name.read_text())
    return sum('gloo' in name for name in names)


class Runner:
    """Part of a cycle, as mmengine's."""

    def __init__(self):
        self.runner = self
        self.model = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))


torch.set_num_threads(1)
mmdet_tools.join_cpu_processes(argparse.Namespace(cfg_options=None), Config({}))
runner = Runner()
runner.model(torch.ones(2, 4)).sum().backward()
distributed.broadcast_object_list([{'AP': 0.5}])
before = gloo_threads()
del runner
mmdet_tools.leave_process_group()
until = time.monotonic() + 5
while gloo_threads() and time.monotonic() < until:
    time.sleep(0.01)  # One that was joined is listed for a moment more.
left = f'{before > 0} {gloo_threads()} {distributed.is_initialized()}'
Path(os.environ['RANK']).write_text(left)
