"""Everything that a machine with a GPU can tell: one command, one archive to attach to an issue.

    python validation/gpu_check.py [--out work_dirs/gpu_check]      # `make gpu-check`, 20 minutes
    python validation/gpu_check.py --quick                          # the same steps, also on a CPU

Each step is a process of its own with a time limit. What fails is recorded and the rest goes on.
Writes report.md, report.json and gpu_check.tar.gz into the folder; paths, user and host name are
taken out of what the steps printed. The exit status is 1 where a step failed.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm

from benchmarks.measure import machine, markdown
from polynl_mmdet.errors import one_line_errors

ROOT = Path(__file__).resolve().parent.parent
DEMO = 'configs/demo/mask-rcnn_r18-polynl-site-c4_fpn_toy-coco.py'
LINES_SHOWN = 60
NEEDS = {'cuda': 'a GPU', 'two': 'two GPUs'}


class Step(NamedTuple):
    """One process.

    Attributes:
        name (str): Shown, and the name of its log.
        command (str): Without the Python interpreter.
        limit (int): Seconds.
        needs (str): A key of NEEDS, or ''.
        flags (dict): Environment variables.
    """

    name: str
    command: str
    limit: int
    needs: str = ''
    flags: dict[str, str] = {}


def steps(device: str, quick: bool, out: Path) -> list[Step]:
    """Return what is run, in this order."""
    q = ' --quick' if quick else ''
    check = f'validation/gpu_checks.py {{}} --device {device}{q}'
    operator = f'benchmarks/operator.py --device {device}{q} --output {out}/operator_{{}}.json'
    data = out / 'toy_coco'
    epochs = 1 if quick else 6
    options = [f'{part}_dataloader.dataset.data_root={data}/' for part in ('train', 'val', 'test')]
    options += [
        f'{part}_evaluator.ann_file={data}/annotations/instances_val.json'
        for part in ('val', 'test')
    ]
    options += [f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}']
    amp = ['optim_wrapper.type=AmpOptimWrapper']

    def train(name: str, more: Sequence[str] = (), launcher: str = 'none') -> str:
        return (
            f'tools/train.py {DEMO} --work-dir {out}/{name} --launcher {launcher} '
            f'--cfg-options {shlex.join([*options, *more])}'
        )

    images = (8, 4) if quick else (400, 80)
    two = " --detectors none 'Poly-NL c4'" if quick else ''
    return [
        Step('environment', check.format('environment'), 120),
        Step('exactness', check.format('exactness'), 300),
        Step('compile, capture, no waiting', check.format('compiled'), 300),
        Step('calibration', f'benchmarks/calibrate.py --device {device}{q}', 300),
        *(
            Step(
                f'operator, {name}',
                f'{operator.format(name)} --dtype {name}',
                240,
                '' if name == 'float32' else 'cuda',
                # Both flags alike: products and convolutions round to TF32, or neither does.
                {'NVIDIA_TF32_OVERRIDE': '0'} if name == 'float32' else {},
            )
            for name in ('float32', 'bfloat16', 'float16')
        ),
        Step(
            'operator, float32 with TF32',
            operator.format('tf32'),
            240,
            'cuda',
            {'TORCH_ALLOW_TF32_CUBLAS_OVERRIDE': '1'},
        ),
        Step(
            'drawn images',
            f'tools/make_toy_data.py coco {data} --train {images[0]} --val {images[1]} --overwrite',
            120,
        ),
        Step('training, float32', train('float32'), 300),
        Step('training, float16 AMP', train('float16', amp), 300, 'cuda'),
        Step(
            'training, bfloat16 AMP',
            train('bfloat16', [*amp, 'optim_wrapper.dtype=bfloat16']),
            300,
            'cuda',
        ),
        Step('forced NaN', check.format('forced-nan'), 300),
        Step('kill and resume', check.format('resumed'), 300),
        Step(
            'training on two GPUs (NCCL)',
            f'-m torch.distributed.run --nproc_per_node 2 {train("nccl", launcher="pytorch")}',
            300,
            'two',
        ),
        Step(
            'detector',
            f'benchmarks/detector.py --device {device}{q}{two} --output {out}/detector.json',
            300,
        ),
        Step(
            'detector, float16 AMP',
            f'benchmarks/detector.py --device {device}{q}{two} --amp float16',
            300,
            'cuda',
        ),
    ]


def run(step: Step, have: set[str], out: Path) -> dict:
    """Run one step; return its name, result, seconds and what it printed."""
    if step.needs and step.needs not in have:
        return dict(name=step.name, result=f'left out: needs {NEEDS[step.needs]}', seconds=0.0)
    log = out / 'logs' / f'{re.sub("[^a-z0-9]+", "_", step.name.lower())}.txt'
    started = time.monotonic()
    with log.open('w') as file:
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', *shlex.split(step.command)],
            cwd=ROOT,
            env={**os.environ, 'PYTHONWARNINGS': 'ignore', **step.flags},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(step.limit)
            result = f'FAILED, exit status {status}' if status else 'passed'
        except subprocess.TimeoutExpired:
            result = f'FAILED, not done after {step.limit} s'
        finally:
            if process.poll() is None:
                # With the trainings that it has started: they would keep the GPU.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = without_places(log.read_text(errors='replace'))
    log.write_text(text)
    return dict(
        name=step.name,
        result=result,
        seconds=round(time.monotonic() - started, 1),
        command=without_places(f'python {step.command}'),
        flags=step.flags,
        output=text.splitlines(),
    )


def without_places(text: str) -> str:
    """Take folders, the user's name and the host's name out of a text."""
    places = map(str, (ROOT, sys.prefix, sys.base_prefix, Path.home()))
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, '...')
    text = re.sub(r'(?<![\w.])/(?:[\w.+-]+/)+', '.../', text)
    for name in (platform.node(), getpass.getuser()):
        text = re.sub(rf'\b{re.escape(name)}\b', '...', text) if name else text
    return text


def markdown_report(report: dict) -> str:
    """Return the report as a page: machine, a row a step, what each printed at last."""
    parts = [f'# GPU check\n\n{report["machine"]}']
    rows = [[s['name'], s['result'], f'{s["seconds"]:.0f}'] for s in report['steps']]
    parts.append(markdown(['step', 'result', 's'], rows))
    for step in report['steps']:
        if 'output' in step:
            flags = ''.join(f'{key}={value} ' for key, value in step['flags'].items())
            shown = '\n'.join(step['output'][-LINES_SHOWN:])
            parts.append(f'## {step["name"]}\n\n`{flags}{step["command"]}`\n\n```\n{shown}\n```')
    return '\n\n'.join(parts) + '\n'


def main() -> None:
    """Run all steps and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu_check'))
    parser.add_argument('--quick', action='store_true', help='tiny shapes, one epoch')
    args = parser.parse_args()
    if args.device == 'cpu' and not args.quick:
        parser.error('no GPU is seen; accepted: --quick, which runs the same steps on a CPU')
    out = args.out.resolve()
    (out / 'logs').mkdir(parents=True, exist_ok=True)
    have = {name for name, least in (('cuda', 1), ('two', 2)) if torch.cuda.device_count() >= least}
    report = dict(machine=machine(args.device), steps=[])
    todo = steps(args.device, args.quick, out)
    for step in todo:
        tqdm.write(f'== {step.name}')
        report['steps'].append(run(step, have, out))
        tqdm.write(f'   {report["steps"][-1]["result"]}, {report["steps"][-1]["seconds"]:.0f} s')
        # After each step: a machine that dies leaves what was found so far.
        (out / 'report.json').write_text(json.dumps(report, indent=1) + '\n')
        (out / 'report.md').write_text(markdown_report(report))
    archive = out / 'gpu_check.tar.gz'
    with tarfile.open(archive, 'w:gz') as tar:
        for name in ('report.md', 'report.json', 'logs'):
            tar.add(out / name, name, filter=_without_owner)
    failed = [s['name'] for s in report['steps'] if s['result'].startswith('FAILED')]
    print(f'{len(failed)} of {len(todo)} steps failed{": " if failed else ""}{", ".join(failed)}')
    print(f'to attach to an issue: {args.out / archive.name}')
    sys.exit(bool(failed))


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uname = member.gname = ''
    member.uid = member.gid = 0
    return member


if __name__ == '__main__':
    with one_line_errors():
        main()
