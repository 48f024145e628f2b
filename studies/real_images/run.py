"""What a layer does on real images: people and faces, a pretrained backbone, many seeds.

    python -m studies.real_images.run --data ../shared/data --minutes 120

Trains the two detectors of this folder, without a layer and with one at the stride-16 level
before the pyramid (LevelContext), and scores them on every --test part: an annotation file of
DATA/real_study by its name ('val', 'masks_val', ...), or any other by its path; its images are
looked for in the folders beside the annotations'. Each finished run is stored at once; the same
command goes on where it stopped, and other parts are scored without training again. Images with the
annotations and the detections of each layer's first seed are drawn into --work-dir.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mmengine.config import Config

from benchmarks.measure import machine
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.wider_face.annotations import read_annotations
from studies.real_images.montage import draw_montage
from studies.real_images.tables import Part, print_scores, score_runs
from studies.runs import read_config, store, take_up

ROOT = Path(__file__).parents[2]
LAYERS: dict[str, dict | None] = {
    'none': None,
    'PolyNL': dict(type='PolyNL'),
    'PolyNL-LN': dict(type='PolyNL', context_norm=True),
    'NonLocal2d': dict(type='NonLocal2d', reduction=2),
    'ContextBlock': dict(type='ContextBlock', ratio=0.25),
}
CONFIGS = {
    'person': 'mask-rcnn_mobilenet0.25_fpn_real-person.py',
    'face': 'retinaface_mobilenet0.25_merge-fpn_real-face.py',
}
# Where DATA/real_study/TASK has the annotation file of a part.
FILES = {'person': 'annotations/{}.json', 'face': 'wider_face_split/{}_bbx_gt.txt'}
DEFAULT_PARTS = ('val', 'pedestrians_val', 'masks_val', 'wider_val')
LEVEL, CHANNELS = 1, [64, 128, 256]  # of MobileNetV1-0.25: strides 8, 16 and 32


def find_part(task: str, text: str, data: Path) -> Part | None:
    """Find the annotation file that an argument of --test means.

    Args:
        task (str): A key of CONFIGS.
        text (str): A part's name, or a path.
        data (Path): The folder that holds ``real_study``.

    Returns:
        Part or None: None if this task has no such part.

    Raises:
        InputError: The file names images that are nowhere beside it.
    """
    before, after = Path(FILES[task]).name.split('{}')
    file = data / 'real_study' / task / FILES[task].format(text)
    if not file.is_file():
        file = Path(text)
        if not (file.is_file() and file.suffix == Path(FILES[task]).suffix):
            return None
    if task == 'person':
        images = json.loads(file.read_text(encoding='utf-8'))['images']
        first = images[0]['file_name'] if images else ''
    else:
        first = next(iter(read_annotations(file).names), '')
    beside, above = file.resolve().parents[:2]
    roots = [beside, *sorted(beside.iterdir()), *sorted(above.iterdir())]
    for folder in (sub for root in roots for sub in (root, root / 'images')):
        if first and (folder / first).is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
            stem = file.name.removeprefix(before).removesuffix(after)
            return Part(task, f'{stem}-{digest}', file.resolve(), folder)
    raise InputError(
        str(file),
        f'{first!r} is in no folder beside it',
        'accepted: the images in a folder beside it',
    )


def find_parts(args: argparse.Namespace) -> list[Part]:
    """list[Part]: the parts of the chosen tasks that --test names.

    Raises:
        InputError: No task has a part of that name.
    """
    parts = []
    for text in args.test:
        found = [part for task in args.task if (part := find_part(task, text, args.data))]
        if not found and args.test != list(DEFAULT_PARTS):
            raise InputError(
                '--test', text, f'accepted: a part of {args.data}/real_study, or a file like theirs'
            )
        parts += found
    return parts


def configure(task: str, layer: str, seed: int, args: argparse.Namespace) -> Config:
    """Config: how a detector is trained."""
    cfg = read_config(Path(__file__).with_name(CONFIGS[task]))
    root = args.data.resolve() / 'real_study' / task
    cfg.model.backbone.init_cfg.checkpoint = str(weights_file(args).resolve())
    if LAYERS[layer]:
        cfg.model.neck = dict(
            type='LevelContext',
            layer=LAYERS[layer],
            levels=[LEVEL],
            in_channels=CHANNELS,
            neck=cfg.model.neck,
        )
    cfg.train_dataloader.dataset.data_root = f'{root}/'
    # The test that follows scores the detector; none is needed while it trains.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg.max_epochs = args.epochs
    cfg.param_scheduler[1].T_max = cfg.param_scheduler[1].end = args.epochs
    cfg.default_hooks.checkpoint.interval = args.epochs
    cfg.randomness = dict(seed=seed)
    return cfg


def for_testing(cfg: Config, part: Part, prefix: Path) -> Config:
    """Config: one that writes the detections in a part's images to files that begin with prefix."""
    dataset = cfg.test_dataloader.dataset
    dataset.data_root = ''
    dataset.ann_file = str(part.file)
    dataset.data_prefix = dict(img=f'{part.images}/')
    cfg.test_evaluator.outfile_prefix = str(prefix)
    if part.task == 'person':
        cfg.test_evaluator.ann_file = str(part.file)
        cfg.test_evaluator.format_only = True
    return cfg


def run_tool(args: argparse.Namespace, what: str, tool: str, *arguments: str | Path) -> list[str]:
    """Run a tool of this project in a process of its own.

    Returns:
        list[str]: The lines that it printed.

    Raises:
        InputError: It failed.
    """
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)],
        env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines() or ['no output']
    if done.returncode:
        raise InputError(what, lines[-1], f'{tool} ended with status {done.returncode}')
    return lines


def weights_file(args: argparse.Namespace) -> Path:
    """Path: the converted ImageNet weights."""
    return args.work_dir / 'mobilenet0.25_imagenet.pth'


def run_dir(task: str, layer: str, seed: int, args: argparse.Namespace) -> Path:
    """Path: folder of one run."""
    return args.work_dir / task / f'{layer}-{seed}'


def train(task: str, layer: str, seed: int, args: argparse.Namespace) -> dict:
    """Train one detector.

    Args:
        task (str): A key of CONFIGS.
        layer (str): A key of LAYERS.
        seed (int): Of weights and order of the images.
        args (argparse.Namespace): The command line.

    Returns:
        dict: ``step_s`` (median seconds a training step), ``minutes`` and ``loss`` (the last).
    """
    folder = run_dir(task, layer, seed, args)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / 'train.py'
    configure(task, layer, seed, args).dump(config)
    started = time.monotonic()
    run_tool(args, f'training {folder}', 'train.py', config, '--work-dir', folder)
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in logs[-1].read_text(encoding='utf-8').splitlines()]
    records = [record for record in records if 'loss' in record]
    return {
        'step_s': statistics.median(record['time'] for record in records),
        'minutes': (time.monotonic() - started) / 60,
        'loss': records[-1]['loss'],
    }


def test(task: str, layer: str, seed: int, part: Part, args: argparse.Namespace) -> None:
    """Write a trained detector's detections in a part's images, once."""
    folder = run_dir(task, layer, seed, args)
    done = folder / f'{part.name}.done'
    if done.exists():
        return
    config = folder / f'{part.name}.py'
    for_testing(configure(task, layer, seed, args), part, folder / part.name).dump(config)
    checkpoint = folder / f'epoch_{args.epochs}.pth'
    run_tool(
        args, f'testing {folder}', 'test.py', config, checkpoint, '--work-dir', folder / 'test'
    )
    done.touch()


def parse_args() -> argparse.Namespace:
    """argparse.Namespace: the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--task', nargs='+', choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument('--test', nargs='+', metavar='PART', default=list(DEFAULT_PARTS))
    parser.add_argument('--layers', nargs='+', choices=LAYERS, default=list(LAYERS))
    parser.add_argument('--seeds', type=int, default=5, help='runs a layer (default: 5)')
    parser.add_argument('--epochs', type=int, default=8, help='about 85 steps each (default: 8)')
    parser.add_argument('--minutes', type=float, default=1e6, help='start no run after these')
    parser.add_argument('--workers', type=int, default=2, help='runs at a time (default: 2)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads a run (default: 1)')
    parser.add_argument('--resamples', type=int, default=1000, help='of the bootstrap')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/real_images'))
    parser.add_argument('--output', type=Path, default=Path('real_images.json'))
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Train and test what is left, score all that is there, print the tables."""
    for name in ('seeds', 'epochs', 'workers', 'threads'):
        if getattr(args, name) < 1:
            raise InputError(f'--{name}', str(getattr(args, name)), 'accepted: 1 or more')
    parts = find_parts(args)
    report = {
        'command': ' '.join(['python -m studies.real_images.run', *sys.argv[1:]]),
        'machine': dict(machine('cpu'), threads=args.threads, workers=args.workers),
        'epochs': args.epochs,
    }
    report['runs'] = take_up(report, args.output, 'epochs')
    if not weights_file(args).exists():
        source = args.data / 'mobilenet025_imagenet' / 'mobilenetV1X0.25_pretrain.tar'
        run_tool(args, str(source), 'convert_retinaface.py', source, weights_file(args))
    until = time.monotonic() + 60 * args.minutes

    def run(job: tuple[str, str, int]) -> dict | None:
        known = report['runs'].get('/'.join(map(str, job)))
        if known is None and time.monotonic() < until:
            known = train(*job, args)
        for part in parts if known else ():
            if part.task == job[0]:
                test(*job, part, args)
        return known

    jobs = [(t, layer, s) for s in range(args.seeds) for t in args.task for layer in args.layers]
    with ThreadPoolExecutor(args.workers) as pool:
        futures = {pool.submit(run, job): '/'.join(map(str, job)) for job in jobs}
        for future in as_completed(futures):
            name = futures[future]
            if future.result() is not None and name not in report['runs']:
                report['runs'][name] = future.result()
                store(report, args.output)
                print(f'{name}: {future.result()}', flush=True)
    report['scores'] = {}
    for part in parts:
        runs = {
            layer: {
                seed: run_dir(part.task, layer, seed, args) / part.name
                for seed in range(args.seeds)
                if f'{part.task}/{layer}/{seed}' in report['runs']
            }
            for layer in args.layers
        }
        name = f'{part.task}/{part.name}'
        report['scores'][name] = score_runs(
            part, runs, args.data / 'wider_eval' / 'ground_truth', args.resamples
        )
        print_scores(name, report['scores'][name])
        draw_montage(part, runs, args.work_dir / f'{part.task}-{part.name}.jpg')
    store(report, args.output)


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
