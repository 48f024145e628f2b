"""Kill trainings at any moment, resume them, and compare with one that was not killed.

    python validation/kill_resume.py [--kills 20] [--work-dir FOLDER]

Trains a small Mask R-CNN on drawn shapes by tools/train.py, once for every setting without
interruption. Then, as often as asked for, once more: killed with SIGKILL at a random moment, half
of the times while it writes a checkpoint, resumed with ``--resume`` and compared to the bit:
weights, optimizer, schedules, generators, place in the data, logged losses and metrics, and the
best checkpoint. Prints a table; the exit status is 1 if any run ended differently.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from mmengine.logging import HistoryBuffer
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import machine, markdown
from polynl_mmdet.datasets.toy.coco import make_toy_coco
from polynl_mmdet.engine import load_checkpoint
from polynl_mmdet.engine.checkpoints import PARTIAL
from polynl_mmdet.errors import InputError, one_line_errors
from validation.forked import ROOT, run_tool, start

CONFIG = ROOT / 'configs/demo/mask-rcnn_r18-polynl-site-c4_fpn_toy-coco.py'
OPTIONS = shlex.split("""
    default_hooks.checkpoint.max_keep_ckpts=2
    default_hooks.checkpoint.save_best=coco/bbox_mAP default_hooks.checkpoint.rule=greater
    default_hooks.logger.interval=1 train_cfg.max_epochs=3 train_cfg.val_interval=1
    train_dataloader.batch_size=2 train_dataloader.dataset.pipeline.2.scale=(96,96)
    val_dataloader.num_workers=0 val_dataloader.persistent_workers=False
    model.backbone.base_channels=8 model.backbone.stem_channels=8
    model.neck.in_channels=[8,16,32,64] model.neck.out_channels=16
    model.rpn_head.in_channels=16 model.rpn_head.feat_channels=16
    model.roi_head.bbox_roi_extractor.out_channels=16 model.roi_head.bbox_head.in_channels=16
    model.roi_head.mask_roi_extractor.out_channels=16 model.roi_head.mask_head.in_channels=16
    model.roi_head.mask_head.conv_out_channels=16 model.roi_head.bbox_head.fc_out_channels=32
    model.train_cfg.rpn_proposal.max_per_img=40 model.test_cfg.rpn.max_per_img=20
""")
SAVED_BY = {'epoch': ['interval=1', 'by_epoch=True'], 'iteration': ['interval=4', 'by_epoch=False']}
SETTINGS = [(workers, saved_by) for workers in (0, 2) for saved_by in SAVED_BY]
STEP, RESUMED = r'Epoch\(train\)\s+(\[\d+\]\[\s*\d+/\d+\])', r'Load checkpoint from (\S+)'
CLOCKS = ('time', 'data_time', 'memory', 'eta')  # Differ between any two runs.


def training(run: Path, setting: tuple[int, str], *more: str) -> tuple[int, Path]:
    """Start a training of some seconds beside the data; return the process and its log."""
    workers, saved_by = setting
    options = [f'default_hooks.checkpoint.{option}' for option in SAVED_BY[saved_by]]
    options += [f'train_dataloader.num_workers={workers}', 'randomness.seed=0']
    options += [f'train_dataloader.persistent_workers={workers > 0}', *OPTIONS]
    log = run.with_suffix('.resumed.log' if more else '.log')
    command = (CONFIG, '--work-dir', run, '--cfg-options', *options, *more)
    return start(partial(run_tool, 'train.py', *command), log, run.parent), log


def finish(process: int, log: Path) -> None:
    """Wait for a training, which must succeed."""
    if os.waitpid(process, 0)[1]:
        last = (log.read_text(errors='replace').strip().splitlines() or ['no output'])[-1]
        raise InputError(f'training, see {log}', last)


def is_writing(folder: Path) -> bool:
    """Return whether a checkpoint is half-written, or was when its run was killed."""
    with contextlib.suppress(FileNotFoundError):
        return any(name.endswith(f'.pth{PARTIAL}') for name in os.listdir(folder))
    return False


def kill(process: int, folder: Path, moment: float, write: int = 0) -> float | None:
    """Kill a training some seconds after its n-th write of a checkpoint began (0: after now).

    Returns the seconds until then; None: the training had ended before.
    """
    begun, due, seen, before = time.monotonic(), float('inf'), 0, False
    while time.monotonic() < due:
        if os.waitpid(process, os.WNOHANG)[0]:
            return None
        writing = is_writing(folder)
        seen, before = seen + (writing and not before), writing
        if seen >= write:
            due = min(due, time.monotonic() + moment)
        time.sleep(0.0003)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return time.monotonic() - begun


def result(folder: Path) -> dict:
    """Return what must be equal, from the last checkpoint and the best one of a run."""
    last = load_checkpoint((folder / 'last_checkpoint').read_text())
    (best,) = folder.glob('best_*.pth')
    log = last['message_hub']['log_scalars']
    kept = ('state_dict', 'optimizer', 'param_schedulers', 'resume_state')
    return {
        **{key: last[key] for key in kept},
        'log': {key: log[key] for key in log if key.rpartition('/')[2] not in CLOCKS},
        'meta': {key: last['meta'][key] for key in ('epoch', 'iter', 'seed')},
        'best': {best.name: load_checkpoint(str(best))['state_dict']},
        'files': sorted(path.name for path in folder.glob('*.pth*')),
    }


def leaves(value: object, where: str = '') -> Iterator[tuple[str, object]]:
    """Yield the place and the exact content of everything in a nest of containers and tensors."""
    if isinstance(value, HistoryBuffer):
        value = value.data
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        yield where, (type(value), len(value))
        for key, item in items:
            yield from leaves(item, f'{where}/{key}')
    elif isinstance(value, torch.Tensor):
        yield from leaves(value.detach().cpu().numpy(), where)
    elif hasattr(value, 'tobytes'):
        yield where, (value.dtype, value.shape, value.tobytes())
    else:
        yield where, (type(value), value)


def differences(one: object, other: object) -> list[str]:
    """Return the places in which two nests of containers and tensors differ in any bit."""
    ours, theirs = dict(leaves(one)), dict(leaves(other))
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]


def last_match(pattern: str, log: Path, otherwise: str) -> str:
    """Return what a pattern last found in a log."""
    return ([otherwise] + re.findall(pattern, log.read_text(errors='replace')))[-1]


def uninterrupted(folder: Path, setting: tuple[int, str]) -> dict:
    """Train to the end; return the result, the seconds and the number of checkpoint writes."""
    begun = time.monotonic()
    finish(*training(folder, setting))
    seconds = time.monotonic() - begun
    text = folder.with_suffix('.log').read_text(errors='replace')
    writes = len(re.findall(r'Saving checkpoint at|The best checkpoint with', text))
    return dict(result=result(folder), seconds=seconds, writes=writes)


def trial(
    folder: Path, setting: tuple, whole: dict, in_write: bool, draw: random.Random
) -> list[str]:
    """Kill a training, at any moment or in a write; resume it; return a row of the table."""
    seconds, number = None, 0
    while seconds is None:  # It had ended before; this machine was quicker than the first time.
        number += 1
        run = folder.with_name(f'{folder.name}_try_{number}')
        process, log = training(run, setting)
        if in_write:
            seconds = kill(process, run, draw.uniform(0, 0.004), draw.randint(1, whole['writes']))
        else:
            seconds = kill(process, run, draw.uniform(0.05, whole['seconds'] * 0.9**number))
    row = [
        *map(str, setting),
        f'{seconds:.2f} s',
        last_match(STEP, log, '-'),
        'yes' if is_writing(run) else 'no',
    ]
    process, log = training(run, setting, '--resume')
    finish(process, log)
    found = differences(whole['result'], result(run))
    return [
        *row,
        Path(last_match(RESUMED, log, 'the beginning')).name,
        f'NO: {found[0]}' if found else 'yes',
    ]


def main(kills: int, folder: Path, settings: list[tuple[int, str]]) -> bool:
    """Return whether all killed runs ended as those that were not."""
    make_toy_coco(folder / 'data' / 'toy_coco', train=12, val=2, seed=0, size=64)
    whole = {s: uninterrupted(folder / f'whole_{s[0]}_{s[1]}', s) for s in settings}
    draw, rows = random.Random(0), []
    for number in tqdm(range(kills), disable=None):
        setting = settings[number // 2 % len(settings)]
        run = folder / f'killed_{number}'
        row = trial(run, setting, whole[setting], bool(number % 2), draw)
        rows.append([str(number), *row])
    header = ['run', 'workers', 'saved by', 'killed after', 'at epoch:step', 'while writing']
    print(markdown([*header, 'resumed from', 'identical'], rows))
    same, written = sum(row[-1] == 'yes' for row in rows), sum(row[5] == 'yes' for row in rows)
    print(f'\n{machine("cpu")}\n{same} of {kills} killed runs ended identical to the uninterrupted')
    print(f'one; {written} were killed while they wrote a checkpoint.')
    return same == kills


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=20, help='runs to kill (default: 20)')
    parser.add_argument('--work-dir', type=Path, help='kept if given (default: temporary)')
    args = parser.parse_args()
    with one_line_errors(), tempfile.TemporaryDirectory() as temporary:
        work_dir = (args.work_dir or Path(temporary)).resolve()
        work_dir.mkdir(parents=True, exist_ok=True)
        raise SystemExit(not main(args.kills, work_dir, SETTINGS))
