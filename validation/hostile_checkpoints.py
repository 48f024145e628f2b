"""Gives every hostile file to every place that loads a checkpoint, and prints what happened.

    python validation/hostile_checkpoints.py [--cases NAME ...] [--entries NAME ...] [--output FILE]

A cell says how the file was refused: 'refused' (it wants to run code or to fill the memory) or
'damaged' (it is no whole checkpoint). FAILED stands for anything else: it was loaded, something in
it ran (a marker file says so), the error is not the documented one or does not name the file. The
exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import polynl_mmdet  # noqa: E402, F401  Puts the guard in force.
from polynl_mmdet.engine import AtomicCheckpointHook, load_checkpoint  # noqa: E402
from polynl_mmdet.errors import InputError  # noqa: E402
from validation.hostile_files import CASES  # noqa: E402

FILE = 'hostile.pth'
CONFIG = str(ROOT / 'configs/demo/retinaface_r18-polynl-site-c4_merge-fpn_toy-wider.py')
URL = f'https://example.invalid/{FILE}'


class Places:
    """Every place that loads a checkpoint, as a function of its path.

    Args:
        folder (Path): For the work dir and an image.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / 'image.png'
        cv2.imwrite(str(self.image), np.zeros((64, 64, 3), np.uint8))
        init_default_scope('mmdet')
        self.runner = Runner(
            model=nn.Linear(3, 2),
            work_dir=str(folder / 'work'),
            experiment_name='hostile',
            log_level='ERROR',
        )
        # Both are reached after a checkpoint is loaded; mmengine builds them from configs.
        self.runner._train_loop = argparse.Namespace(_epoch=0, _iter=0)

    def entries(self) -> dict[str, Callable[[Path], object]]:
        """Name of each place, and the function."""
        return {
            'tools/train.py --resume FILE': self.resume,
            'tools/train.py --resume': self.resume_last,
            '--resume FILE of mmengine': self.resume_of_mmengine,
            '--resume of mmengine': self.resume_last_of_mmengine,
            'tools/train.py, load_from': self.load_from,
            'tools/test.py FILE': self.load_from,
            'init_cfg Pretrained': self.pretrained,
            'init_cfg Pretrained, prefix': self.pretrained_part,
            'load_checkpoint of mmengine': self.mmengine,
            'download': self.download,
            'init_detector': self.init_detector,
            'DetInferencer': self.inferencer,
            'DetInferencer without config': self.inferencer_alone,
            'tools/convert_retinaface.py': self.convert,
            'tools/face_demo.py': self.face_demo,
            'tools/visualize_receptive_field.py': self.receptive_field,
            'polynl_mmdet.engine.load_checkpoint': lambda path: load_checkpoint(str(path)),
        }

    def _run(self, resume: bool, load_from: str | None) -> None:
        self.runner._has_loaded = False
        self.runner._resume, self.runner._load_from = resume, load_from
        self.runner.load_or_resume()

    def _choose(self, load_from: str | None) -> None:
        self.runner._has_loaded = False
        self.runner._resume, self.runner._load_from = True, load_from
        AtomicCheckpointHook().before_run(self.runner)
        self.runner.load_or_resume()

    def _note(self, path: Path) -> None:
        (Path(self.runner.work_dir) / 'last_checkpoint').write_text(str(path), encoding='utf-8')

    def resume(self, path: Path) -> None:
        """What this project's configs do first in training, after ``--resume FILE``."""
        self._choose(str(path))

    def resume_last(self, path: Path) -> None:
        """The same after ``--resume``: the file that the work dir names as the last."""
        self._note(path)
        self._choose(None)

    def resume_of_mmengine(self, path: Path) -> None:
        """The same with mmengine's CheckpointHook."""
        self._run(True, str(path))

    def resume_last_of_mmengine(self, path: Path) -> None:
        """The same with mmengine's CheckpointHook."""
        self._note(path)
        self._run(True, None)

    def load_from(self, path: Path) -> None:
        """``load_from`` of a config; test.py sets it to its argument."""
        self._run(False, str(path))

    def _backbone(self, path: Path, **more: str) -> None:
        from mmdet.registry import MODELS

        init = dict(type='Pretrained', checkpoint=str(path), **more)
        MODELS.build(dict(type='MobileNetV1', widen_factor=0.25, init_cfg=init)).init_weights()

    def pretrained(self, path: Path) -> None:
        """A backbone's weights."""
        self._backbone(path)

    def pretrained_part(self, path: Path) -> None:
        """A part of a detector's weights."""
        self._backbone(path, prefix='backbone.')

    def mmengine(self, path: Path) -> None:
        """mmengine's function."""
        from mmengine.runner import load_checkpoint as load

        load(nn.Linear(3, 2), str(path), map_location='cpu')

    def download(self, path: Path) -> None:
        """A URL whose file is in torch.hub's cache."""
        cache = path.parent / 'hub' / 'checkpoints'
        cache.parent.mkdir(exist_ok=True)
        cache.symlink_to(path.parent, target_is_directory=True)
        before = os.environ.get('TORCH_HOME')
        os.environ['TORCH_HOME'] = str(path.parent)
        try:
            CheckpointLoader.load_checkpoint(URL)
        finally:
            os.environ.pop('TORCH_HOME')
            if before is not None:
                os.environ['TORCH_HOME'] = before

    def init_detector(self, path: Path) -> None:
        """mmdet's function behind demos and scripts."""
        from mmdet.apis import init_detector

        init_detector(CONFIG, str(path), device='cpu')

    def inferencer(self, path: Path) -> None:
        """mmdet's class behind its demo."""
        from mmdet.apis import DetInferencer

        DetInferencer(model=CONFIG, weights=str(path), device='cpu')

    def inferencer_alone(self, path: Path) -> None:
        """The same, which takes the config from the checkpoint."""
        from mmdet.apis import DetInferencer

        DetInferencer(weights=str(path), device='cpu')

    def convert(self, path: Path) -> None:
        """The converter."""
        _tool('convert_retinaface').main([str(path), str(self.folder / 'out.pth')])

    def face_demo(self, path: Path) -> None:
        """The face demo."""
        out = str(self.folder / 'faces')
        _tool('face_demo').main([str(self.image), CONFIG, str(path), '--out', out])

    def receptive_field(self, path: Path) -> None:
        """The receptive field's drawing."""
        args = argparse.Namespace(cfg_options=None, seed=0)
        _tool('visualize_receptive_field').build(CONFIG, str(path), args)


def _tool(name: str) -> ModuleType:
    module = sys.modules.get(f'tools_{name}')
    if module is None:
        spec = importlib.util.spec_from_file_location(f'tools_{name}', ROOT / f'tools/{name}.py')
        module = importlib.util.module_from_spec(spec)
        sys.modules[f'tools_{name}'] = module
        spec.loader.exec_module(module)
    return module


def attempt(write: Callable[[Path, Path], None], load: Callable[[Path], object]) -> str:
    """Give one file to one place.

    Returns:
        str: 'refused' or 'damaged'; 'FAILED: ...' if it was not told as it should.
    """
    folder = Path(tempfile.mkdtemp())
    path, marker = folder / FILE, folder / 'marker'
    try:
        write(path, marker)
        said = io.StringIO()
        error = None
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                load(path)
        except Exception as caught:
            error = caught
        if marker.exists():
            return 'FAILED: something in it ran'
        if error is None:
            return 'FAILED: loaded'
        if not isinstance(error, InputError):
            return f'FAILED: {type(error).__name__}: {str(error)[:80]}'
        if FILE not in str(error) or '\n' in str(error):
            return f'FAILED: does not name the file in one line: {str(error)[:80]}'
        return 'refused' if 'refused' in str(error) else 'damaged'
    finally:
        shutil.rmtree(folder)


def table(
    cases: Iterable[str] = (), entries: Iterable[str] = ()
) -> tuple[dict[str, dict[str, str]], float]:
    """Every case at every entry point.

    Args:
        cases (Iterable[str]): Names in ``CASES``. Defaults to all.
        entries (Iterable[str]): Names of entry points. Defaults to all.

    Returns:
        tuple: Case to entry point to what happened; and how far the memory's peak rose, in MiB.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder)).entries()
        chosen = {name: places[name] for name in entries or places}
        MMLogger.get_current_instance().setLevel(logging.ERROR)
        for load in chosen.values():  # Imports and first uses take memory of their own.
            attempt(CASES['empty file'], load)
        before = _peak()
        results = {
            case: {name: attempt(CASES[case], load) for name, load in chosen.items()}
            for case in cases or CASES
        }
    return results, _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(results: dict[str, dict[str, str]]) -> None:
    """Print the table, a column an entry point."""
    names = list(next(iter(results.values())))
    for number, name in enumerate(names, 1):
        print(f'{number:>2}  {name}')
    print(f'\n{"":<50}' + ''.join(f'{n:>3}' for n in range(1, len(names) + 1)))
    for case, row in results.items():
        cells = {'refused': 'r', 'damaged': 'd'}
        print(f'{case:<50}' + ''.join(f'{cells.get(row[name], "X"):>3}' for name in names))
    print('\nr: refused, d: not a whole checkpoint; X: FAILED, see below')
    for case, row in results.items():
        for name, cell in row.items():
            if cell.startswith('FAILED'):
                print(f'{case} / {name}: {cell}')


def main() -> int:
    """Run and print; 1 if a file was not refused as it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', nargs='+', choices=list(CASES), metavar='NAME')
    parser.add_argument('--entries', nargs='+', metavar='NAME')
    parser.add_argument('--output', help='JSON to write')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    results, grown = table(args.cases or (), args.entries or ())
    show(results)
    cells = [cell for row in results.values() for cell in row.values()]
    failed = sum(cell.startswith('FAILED') for cell in cells)
    print(f'{len(cells)} attempts, {failed} failed; memory rose by {grown:.0f} MiB at its peak')
    if args.output:
        report = {'results': results, 'attempts': len(cells), 'failed': failed, 'MiB': grown}
        Path(args.output).write_text(json.dumps(report, indent=1), encoding='utf-8')
    return int(failed > 0)


if __name__ == '__main__':
    raise SystemExit(main())
