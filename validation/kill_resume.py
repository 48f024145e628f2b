"""Does a training that is killed at any moment end as if it had not been?

    python validation/kill_resume.py --kills 20 --output kill_resume.json

Trains a small Mask R-CNN on drawn shapes by tools/train.py, once for every setting without
interruption. Then, as often as asked for, once more: killed with SIGKILL at a random moment, half
of the times while it writes a checkpoint, resumed with ``--resume`` and compared to the bit:
weights, optimizer, schedules, generators, place in the data, logged losses and metrics, and the
best checkpoint. Prints a table; the exit status is 1 if any run ended differently.
"""

import sys
from os.path import abspath, dirname

# A script's own folder comes first on the path, and `operator.py` in this one would hide the
# standard library's.
sys.path[0] = dirname(dirname(abspath(__file__)))

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import re  # noqa: E402
import signal  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from mmengine.logging import HistoryBuffer  # noqa: E402

from benchmarks.measure import machine, markdown  # noqa: E402
from polynl_mmdet.cli.mmdet_tools import run as run_mmdet_tool  # noqa: E402
from polynl_mmdet.datasets.toy.coco import make_toy_coco  # noqa: E402
from polynl_mmdet.engine.checkpoints import PARTIAL, load_checkpoint  # noqa: E402
from polynl_mmdet.errors import InputError, one_line_errors  # noqa: E402

CONFIG = Path(sys.path[0]) / 'configs' / 'demo' / 'mask-rcnn_r18-polynl-c4_fpn_toy-coco.py'
EPOCHS, IMAGES, BATCH = 3, 12, 2
CHANNELS = 16
NARROWED = (
    'neck.out_channels',
    'rpn_head.in_channels',
    'rpn_head.feat_channels',
    'roi_head.bbox_roi_extractor.out_channels',
    'roi_head.bbox_head.in_channels',
    'roi_head.mask_roi_extractor.out_channels',
    'roi_head.mask_head.in_channels',
    'roi_head.mask_head.conv_out_channels',
)
SAVED_BY = {
    'epoch': ['interval=1', 'by_epoch=True'],
    'iteration': ['interval=4', 'by_epoch=False'],
}
# Differ between any two runs.
CLOCKS = ('time', 'data_time', 'memory', 'eta')


def command(data: Path, work_dir: Path, workers: int, saved_by: str) -> list[str]:
    """list[str]: arguments of tools/train.py for a training of some seconds."""
    ann_file = data / 'annotations' / 'instances_val.json'
    options = [f'{part}_dataloader.dataset.data_root={data}/' for part in ('train', 'val', 'test')]
    options += [f'{part}_evaluator.ann_file={ann_file}' for part in ('val', 'test')]
    options += [f'default_hooks.checkpoint.{option}' for option in SAVED_BY[saved_by]]
    options += [
        'default_hooks.checkpoint.max_keep_ckpts=2',
        'default_hooks.checkpoint.save_best=coco/bbox_mAP',
        'default_hooks.checkpoint.rule=greater',
        'default_hooks.logger.interval=1',
        f'train_cfg.max_epochs={EPOCHS}',
        'train_cfg.val_interval=1',
        f'train_dataloader.batch_size={BATCH}',
        f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={workers > 0}',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'train_dataloader.dataset.pipeline.2.scale=(96,96)',
        'model.backbone.base_channels=8',
        'model.backbone.stem_channels=8',
        'model.neck.in_channels=[8,16,32,64]',
        'model.roi_head.bbox_head.fc_out_channels=32',
        'model.train_cfg.rpn_proposal.max_per_img=40',
        'model.test_cfg.rpn.max_per_img=20',
    ]
    options += [f'model.{place}={CHANNELS}' for place in NARROWED]
    return [str(CONFIG), '--work-dir', str(work_dir), '--cfg-options', *options]


def start(arguments: list[str], log: Path) -> int:
    """Start tools/train.py in a process that has imported everything already.

    Args:
        arguments (list[str]): Its command line.
        log (Path): Gets what it prints.

    Returns:
        int: The process, first of a group of its own.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ['train.py', *arguments]
        run_mmdet_tool('train.py')
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(process: int, log: Path) -> None:
    """Wait for a process that :func:`start` started.

    Raises:
        InputError: It failed.
    """
    _, status = os.waitpid(process, 0)
    if os.waitstatus_to_exitcode(status):
        last = (log.read_text(errors='replace').strip().splitlines() or ['no output'])[-1]
        raise InputError(f'training, see {log}', last)


def is_writing(work_dir: Path) -> bool:
    """bool: whether a checkpoint is half-written just now, or was when its run was killed."""
    with contextlib.suppress(FileNotFoundError):
        return any(name.endswith(f'.pth{PARTIAL}') for name in os.listdir(work_dir))
    return False


def kill(process: int, work_dir: Path, moment: float, write: int | None) -> float | None:
    """Kill a training and its workers.

    Args:
        process (int): The training.
        work_dir (Path): Its folder.
        moment (float): Seconds after now, or after the write began.
        write (int, optional): Which of its checkpoints to wait for. Defaults to None: none.

    Returns:
        float, optional: Seconds after which it was killed. None: it had ended before.
    """
    begun = time.monotonic()
    due = begun + moment if write is None else float('inf')
    seen, before = 0, False
    while time.monotonic() < due:
        if os.waitpid(process, os.WNOHANG)[0]:
            return None
        if write is not None and due == float('inf'):
            now = is_writing(work_dir)
            seen, before = seen + (now and not before), now
            if seen == write:
                due = time.monotonic() + moment
        time.sleep(0.002 if write is None else 0.0003)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return time.monotonic() - begun


def result(work_dir: Path) -> dict:
    """dict: what must be equal, from the last checkpoint and the best one of a run."""
    last = load_checkpoint((work_dir / 'last_checkpoint').read_text())
    log = last['message_hub']['log_scalars']
    kept = ('state_dict', 'optimizer', 'param_schedulers', 'resume_state')
    found = {key: last[key] for key in kept}
    found['log'] = {k: v.data for k, v in log.items() if k.rpartition('/')[2] not in CLOCKS}
    found['meta'] = {key: last['meta'][key] for key in ('epoch', 'iter', 'seed')}
    (best,) = work_dir.glob('best_*.pth')
    found['best'] = dict(name=best.name, weights=load_checkpoint(str(best))['state_dict'])
    found['files'] = sorted(path.name for path in work_dir.glob('*.pth*'))
    return found


def differences(one: object, other: object, where: str = '') -> list[str]:
    """list[str]: the places in which two nests of containers and tensors differ in any bit."""
    if type(one) is not type(other):
        return [where]
    if isinstance(one, dict):
        keys = list(dict.fromkeys([*one, *other]))
        missing = [f'{where}/{key}' for key in keys if key not in one or key not in other]
        both = [key for key in keys if key in one and key in other]
        return missing + [
            d for key in both for d in differences(one[key], other[key], f'{where}/{key}')
        ]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [where]
        pairs = enumerate(zip(one, other))
        return [d for i, (a, b) in pairs for d in differences(a, b, f'{where}/{i}')]
    if isinstance(one, HistoryBuffer):
        return differences(one.data, other.data, where)
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
    elif hasattr(one, 'tobytes'):
        same = one.dtype == other.dtype and one.tobytes() == other.tobytes()
    else:
        same = one == other
    return [] if same else [where]


def last_step(log: Path) -> str:
    """str: epoch and iteration of the last step in a log, '-' if none."""
    steps = re.findall(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/', log.read_text(errors='replace'))
    return f'{steps[-1][0]}:{steps[-1][1]}' if steps else '-'


def resumed_from(log: Path) -> tuple[str, list[str]]:
    """tuple: the file a run went on from, and the files it passed over or removed."""
    text = log.read_text(errors='replace')
    found = re.findall(r'Load checkpoint from (\S+)', text)
    passed = re.findall(r'(\S+): (?:half-written|.*passed over)', text)
    return Path(found[-1]).name if found else 'the beginning', [Path(p).name for p in passed]


def trial(number: int, draw: random.Random, setting: tuple, reference: dict, args) -> dict:
    """Kill one training, resume it and compare.

    Args:
        number (int): Which one.
        draw (random.Random): For the moment.
        setting (tuple): Workers, and what checkpoints are saved by.
        reference (dict): ``result``, ``seconds`` and ``writes`` of the uninterrupted training.
        args (argparse.Namespace): The command line, with ``data`` and ``folder``.

    Returns:
        dict: A row of the table.
    """
    killed, tries, shrink = None, 0, 1.0
    while killed is None:
        tries += 1
        folder = args.folder / f'killed_{number}_try_{tries}'
        arguments = command(args.data, folder, *setting)
        log = folder.with_suffix('.log')
        process = start(arguments + [f'randomness.seed={args.seed}'], log)
        if number % 2:
            write = draw.randint(1, reference['writes'])
            killed = kill(process, folder, draw.uniform(0, 0.004), write)
        else:
            moment = draw.uniform(0.05, reference['seconds'] * shrink)
            killed = kill(process, folder, moment, None)
        shrink *= 0.9  # it ended before: this machine was quicker than the first time
    row = dict(
        run=number,
        workers=setting[0],
        saved_by=setting[1],
        killed_after_s=round(killed, 3),
        at=last_step(log),
        writing=is_writing(folder),
    )
    again = folder.with_suffix('.resumed.log')
    finish(start([*arguments, f'randomness.seed={args.seed}', '--resume'], again), again)
    row['resumed_from'], row['set_aside'] = resumed_from(again)
    row['differences'] = differences(reference['result'], result(folder))
    return row


def uninterrupted(setting: tuple, args: argparse.Namespace) -> dict:
    """dict: ``result``, ``seconds`` and number of ``writes`` of a training left alone."""
    folder = args.folder / f'whole_{setting[0]}_workers_by_{setting[1]}'
    log = folder.with_suffix('.log')
    begun = time.monotonic()
    arguments = [*command(args.data, folder, *setting), f'randomness.seed={args.seed}']
    finish(start(arguments, log), log)
    seconds = time.monotonic() - begun
    text = log.read_text(errors='replace')
    writes = len(re.findall(r'Saving checkpoint at|The best checkpoint with', text))
    return dict(result=result(folder), seconds=seconds, writes=writes)


def table(rows: list[dict]) -> str:
    """str: Markdown, a row a killed run."""
    header = ['run', 'workers', 'saved by', 'killed after', 'at epoch:step', 'while writing']
    header += ['resumed from', 'identical']
    cells = [
        [
            str(row['run']),
            str(row['workers']),
            row['saved_by'],
            f'{row["killed_after_s"]:.2f} s',
            row['at'],
            'yes' if row['writing'] else 'no',
            row['resumed_from'],
            'NO: ' + row['differences'][0] if row['differences'] else 'yes',
        ]
        for row in rows
    ]
    return markdown(header, cells)


def parse_args() -> argparse.Namespace:
    """argparse.Namespace: the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=20, help='runs to kill (default: 20)')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 2], help='default: 0 2')
    parser.add_argument('--saved-by', nargs='+', choices=SAVED_BY, default=list(SAVED_BY))
    parser.add_argument('--seed', type=int, default=0, help='of trainings and moments')
    parser.add_argument('--output', type=Path, help='JSON file (default: none)')
    parser.add_argument('--work-dir', type=Path, help='kept if given (default: temporary)')
    return parser.parse_args()


def main(args: argparse.Namespace) -> bool:
    """bool: whether all runs ended alike."""
    if args.kills < 1 or min(args.workers) < 0 or args.seed < 0:
        raise InputError('--kills, --workers, --seed', 'too small', 'accepted: from 1, 0 and 0')
    if not hasattr(os, 'fork'):
        raise InputError('this system', 'has no fork', 'run it on Linux or macOS')
    # Threads would not survive a fork.
    torch.set_num_threads(1)
    args.data = args.folder / 'data'
    make_toy_coco(args.data, train=IMAGES, val=2, seed=args.seed, size=64)
    settings = [(workers, by) for workers in args.workers for by in args.saved_by]
    references = {setting: uninterrupted(setting, args) for setting in settings}
    draw = random.Random(args.seed)
    rows = []
    for number in range(args.kills):
        # Moments alternate with every run, settings with every second one.
        setting = settings[number // 2 % len(settings)]
        rows.append(trial(number, draw, setting, references[setting], args))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if args.output:
            report = dict(
                command=' '.join(['python validation/kill_resume.py', *sys.argv[1:]]),
                machine=machine('cpu'),
                rows=rows,
            )
            args.output.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    same = sum(not row['differences'] for row in rows)
    print(table(rows))
    print(
        f'\n{same} of {len(rows)} killed runs ended identical to the uninterrupted one; '
        f'{sum(row["writing"] for row in rows)} were killed while they wrote a checkpoint.'
    )
    return same == len(rows)


if __name__ == '__main__':
    with one_line_errors():
        arguments = parse_args()
        with contextlib.ExitStack() as stack:
            arguments.folder = arguments.work_dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory())
            )
            arguments.folder = arguments.folder.resolve()
            arguments.folder.mkdir(parents=True, exist_ok=True)
            ended_alike = main(arguments)
    raise SystemExit(0 if ended_alike else 1)
