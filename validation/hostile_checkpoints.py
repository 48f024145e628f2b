"""Give every hostile file to every place that loads a checkpoint, and print what happened.

    python validation/hostile_checkpoints.py

Each attempt is a process of its own, so that its memory is known. A cell says how the file was
refused: 'r' (it wants to run code or to fill the memory) or 'd' (it is no whole checkpoint).
FAILED stands for anything else: it was loaded, something in it ran (a marker file says so), the
error is not one line, or does not name the file. The exit status is 1 if there is one, or if an
attempt took 64 MiB more than an empty file.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import mmdet.apis
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, sys.path[0] + '/tests/validation')  # The cases are those of the tests.

from hostile_files import CASES

import polynl_mmdet
from polynl_mmdet.datasets.toy.wider import make_toy_wider
from polynl_mmdet.engine import load_checkpoint
from validation.forked import ROOT, run_tool, start

FILE = 'hostile.pth'
CONFIG = 'data/config.py'
MEMORY = 64 << 10  # KiB
_TRAIN = f'train.py {CONFIG} --work-dir work'


def _guarded(load: Callable[[], object]) -> None:
    init_default_scope('mmdet')
    polynl_mmdet.guard_checkpoints()
    load()


def _download() -> None:
    """Load a URL whose file is in torch.hub's cache."""
    os.environ['TORCH_HOME'] = os.getcwd()
    os.makedirs('hub')
    os.symlink(os.getcwd(), 'hub/checkpoints')
    CheckpointLoader.load_checkpoint(f'https://example.invalid/{FILE}')


COMMANDS = {
    'tools/train.py --resume FILE': f'{_TRAIN} --resume {FILE}',
    'tools/train.py --resume': f'{_TRAIN} --resume',
    "tools/train.py --resume FILE, mmengine's hook": f'{_TRAIN} --resume {FILE} --cfg-options '
    'default_hooks.checkpoint.type=CheckpointHook',
    'tools/train.py, load_from': f'{_TRAIN} --cfg-options load_from={FILE}',
    'tools/train.py, init_cfg': f'{_TRAIN} --cfg-options model.init_cfg.type=Pretrained '
    f'model.init_cfg.checkpoint={FILE}',
    'tools/test.py': f'test.py {CONFIG} {FILE} --work-dir work',
    'tools/convert_retinaface.py': f'convert_retinaface.py {FILE} out.pth',
    'tools/export_onnx.py': f'export_onnx.py {CONFIG} {FILE} out.onnx',
    'tools/face_demo.py': f'face_demo.py image.png {CONFIG} {FILE} --out faces',
    'tools/visualize_receptive_field.py': f'visualize_receptive_field.py {CONFIG} {FILE} '
    '--image image.png',
}
# Run in a folder with the file, an image, toy data, and a work dir that names the file as its last.
ENTRIES: dict[str, Callable[[], object]] = {
    **{name: partial(run_tool, *shlex.split(command)) for name, command in COMMANDS.items()},
    'load_checkpoint': lambda: load_checkpoint(FILE),
    "mmengine's CheckpointLoader": partial(
        _guarded, lambda: CheckpointLoader.load_checkpoint(FILE)
    ),
    'download': partial(_guarded, _download),
    'DetInferencer without config': partial(
        _guarded, lambda: mmdet.apis.DetInferencer(weights=FILE, device='cpu')
    ),
}


def prepare(folder: Path) -> None:
    """Write toy data, and a config without bases, which is read sooner."""
    make_toy_wider(folder / 'toy_wider', 2, 1, size=64)
    (name,) = ROOT.glob('configs/*/retinaface_r18-polynl-site-c4_merge-fpn_toy-wider.py')
    Config.fromfile(name).dump(folder / 'config.py')


def attempt(case: str, entry: str, prepared: Path) -> tuple[str, int]:
    """Give a file of ``CASES`` to a place of ``ENTRIES``.

    Returns:
        tuple[str, int]: 'refused', 'damaged' or 'FAILED: ...', and KiB of memory at the peak.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, marker, log = folder / FILE, folder / 'marker', folder / 'log'
        (folder / 'data').symlink_to(prepared)
        (folder / 'work').mkdir()
        (folder / 'work' / 'last_checkpoint').write_text(str(path))
        cv2.imwrite(str(folder / 'image.png'), np.zeros((64, 64, 3), np.uint8))
        path.write_bytes(CASES[case](marker))
        _, status, usage = os.wait4(start(ENTRIES[entry], log, folder), 0)
        status = os.waitstatus_to_exitcode(status)
        said = (log.read_text(errors='replace').strip().splitlines() or ['nothing'])[-1]
        if marker.exists():
            return 'FAILED: something in it ran', usage.ru_maxrss
        if status != 2 or not said.startswith('error: ') or FILE not in said:
            return f'FAILED: status {status}, {said[:90]}', usage.ru_maxrss
        return 'refused' if 'refused' in said else 'damaged', usage.ru_maxrss


def main() -> int:
    """Run and print; 1 if a file was not refused as it should be."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    failed, grown = [], 0
    for number, entry in enumerate(ENTRIES, 1):
        print(f'{number:>2}  {entry}')
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        base = {entry: attempt('empty file', entry, Path(folder))[1] for entry in ENTRIES}
        for case in CASES:
            row = {entry: attempt(case, entry, Path(folder)) for entry in ENTRIES}
            print(f'{case:<48}' + ''.join(f'{cell[0]:>3}' for cell, _ in row.values()), flush=True)
            failed += [
                f'{case} / {entry}: {cell}' for entry, (cell, _) in row.items() if cell[0] == 'F'
            ]
            grown = max(grown, *(peak - base[entry] for entry, (_, peak) in row.items()))
    print('r: refused, d: not a whole checkpoint, F: FAILED', *failed, sep='\n')
    print(f'{len(CASES) * len(ENTRIES)} attempts, {len(failed)} failed; ', end='')
    print(f'memory rose by {grown / 1024:.0f} MiB at most above that of an empty file')
    return int(bool(failed) or grown > MEMORY)


if __name__ == '__main__':
    raise SystemExit(main())
