"""Run mmdet's own train.py and test.py.

Added: this package's registrations, checkpoints that run no code, ConsistencyHook, errors of input
in one line, and training in several processes without a GPU.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import sys
from pathlib import Path

import mmdet
import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device

from polynl_mmdet.engine import ConsistencyHook, force_weights_only
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.models.config_check import check_model, replaced_lists


def mmdet_tool(name: str) -> Path:
    """Find a tool of the installed mmdet, in its ``.mim/tools`` or a checkout's ``tools``."""
    package = Path(mmdet.__file__).parent
    for folder in (package / '.mim' / 'tools', package.parent / 'tools'):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f'{package}: no tools/{name} in this mmdet; install it from its wheel')


def run(name: str) -> None:
    """Run mmdet's train.py or test.py with the command line of this process."""
    with one_line_errors():
        force_weights_only()
        spec = importlib.util.spec_from_file_location('mmdet_tool', mmdet_tool(name))
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        args = tool.parse_args()
        if not os.path.isfile(args.config):
            raise InputError(f'{args.config}: no such config file')
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        for line in replaced_lists(args.config):
            print(f'warning: {line}', file=sys.stderr)
        check_model(cfg.get('model', {}))
        hooks = cfg.get('custom_hooks') or []
        if not any(hook['type'] in ('ConsistencyHook', ConsistencyHook) for hook in hooks):
            hooks = [*hooks, dict(type='ConsistencyHook')]
            args.cfg_options = {**(args.cfg_options or {}), 'custom_hooks': hooks}
        if args.launcher == 'pytorch' and get_device() == 'cpu':
            join_cpu_processes(args, cfg)
        # The tool's main() parses again; it gets the same arguments with what was added.
        tool.parse_args = lambda: args
        tool.main()
        leave_process_group()


def join_cpu_processes(args: argparse.Namespace, cfg: Config) -> None:
    """Join the launcher's processes by gloo, where mmengine would ask for CUDA devices.

    mmengine keeps a process group that exists, and ``device_ids=None`` makes a wrapper for CPUs:
    ``args.cfg_options`` gets it.
    """
    torch.distributed.init_process_group('gloo')
    wrapper = dict(device_ids=None)
    if cfg.get('model_wrapper_cfg') is None:
        unused = cfg.get('find_unused_parameters', False)
        wrapper.update(type='MMDistributedDataParallel', find_unused_parameters=unused)
        wrapper.update(broadcast_buffers=False)
    options = {f'model_wrapper_cfg.{key}': value for key, value in wrapper.items()}
    args.cfg_options = {**options, **(args.cfg_options or {})}


def leave_process_group() -> None:
    """Leave the process group, if there is one, once all of its processes are here.

    A thread of gloo may still hold the last collective's state, and aborts the process if that
    ends first. Call it where nothing failed: it waits for all processes.
    """
    if torch.distributed.is_initialized():
        # A runner is part of cycles. Were its model's wrapper the group's last holder, the group
        # would wait for its threads with the interpreter locked, and they for the interpreter.
        gc.collect()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
