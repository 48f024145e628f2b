"""Does a layer help on real images? People and faces, a pretrained backbone, several seeds.

    python -m studies.real_images.run --data ../shared/data --minutes 120
    python -m studies.real_images.run --data ../shared/data --minutes 0 --test more.json
    python -m studies.real_images.run --data ../shared/data --quick    # a minute: does it run?
    python -m studies.real_images.run --table studies/real_images/results/real_images.json

Trains the two detectors of this folder, without a layer and with one at the stride-16 level before
the pyramid (LevelContext), and scores them on every --test part: the name of an annotation file in
DATA/real_study, or the path of another one with its images in a folder beside it. The same command
continues an interrupted study.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from mmengine.config import Config

from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.runs import read_log
from polynl_mmdet.wider_face.annotations import read_annotations
from studies.real_images.scores import score_runs, tables
from studies.runs import read_config, run_all, run_name, run_tool, store, stored_runs

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
PARTS = ('val', 'pedestrians_val', 'masks_val', 'wider_val')
LEVEL, CHANNELS = 1, [64, 128, 256]  # of MobileNetV1-0.25: strides 8, 16 and 32


def find_part(task: str, text: str, data: Path) -> tuple[Path, Path] | None:
    """Find the annotation file that an argument of --test names, and the folder of its images.

    Returns None if this task has no such part.
    """
    file = data / 'real_study' / task / FILES[task].format(text)
    if not file.is_file():
        file = Path(text)
        if not (file.is_file() and file.suffix == Path(FILES[task]).suffix):
            return None
    file = file.resolve()
    if task == 'person':
        first = json.loads(file.read_text(encoding='utf-8'))['images'][0]['file_name']
    else:
        first = read_annotations(file).names[0]
    beside, above = file.parent, file.parent.parent
    for root in (beside, *sorted(beside.iterdir()), *sorted(above.iterdir())):
        for folder in (root, root / 'images'):
            if (folder / first).is_file():
                return file, folder
    raise InputError(f'{file}: {first} is in no folder beside it')


def configure(task: str, layer: str, seed: int, args: argparse.Namespace) -> Config:
    """Config: one training."""
    cfg = read_config(Path(__file__).with_name(CONFIGS[task]))
    cfg.model.backbone.init_cfg.checkpoint = str(weights_file(args).resolve())
    if LAYERS[layer]:
        context = dict(type='LevelContext', layer=LAYERS[layer], levels=[LEVEL])
        cfg.model.neck = dict(context, in_channels=CHANNELS, neck=cfg.model.neck)
    cfg.train_dataloader.dataset.data_root = f'{args.data.resolve()}/real_study/{task}/'
    if args.quick:
        cfg.train_dataloader.dataset.indices = 16
    # Not validated while training: the tests that follow score the detector.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=args.epochs)
    optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
    clip = dict(max_norm=10.0)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer, clip_grad=clip)
    until = dict(T_max=args.epochs, end=args.epochs, by_epoch=True, convert_to_iter_based=True)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
        dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, **until),
    ]
    cfg.auto_scale_lr = dict(base_batch_size=8, enable=False)
    cfg.default_hooks.logger.interval = 10
    cfg.default_hooks.checkpoint.update(
        interval=args.epochs, max_keep_ckpts=1, save_optimizer=False, save_best=None, rule=None
    )
    cfg.randomness = dict(seed=seed)
    return cfg


def weights_file(args: argparse.Namespace) -> Path:
    """Path: the converted ImageNet weights."""
    return args.work_dir / 'mobilenet0.25_imagenet.pth'


def run_dir(task: str, layer: str, seed: int, args: argparse.Namespace) -> Path:
    """Path: folder of one training."""
    return args.work_dir / task / f'{layer}-{seed}'


def train(task: str, layer: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train one detector; return its last loss and the median seconds per iteration."""
    folder = run_dir(task, layer, seed, args)
    folder.mkdir(parents=True, exist_ok=True)
    configure(task, layer, seed, args).dump(folder / 'train.py')
    run_tool('train.py', folder / 'train.py', '--work-dir', folder)
    training, _ = read_log(folder)
    step_s = statistics.median(record['time'] for record in training)
    return {'step_s': step_s, 'loss': training[-1]['loss']}


def test(
    task: str, layer: str, seed: int, file: Path, images: Path, args: argparse.Namespace
) -> Path:
    """Write a detector's detections on a part, once; return the prefix of their files."""
    folder = run_dir(task, layer, seed, args)
    prefix = folder / f'{file.stem}-{file.stat().st_size}'
    done = Path(f'{prefix}.done')
    if not done.exists():
        cfg = configure(task, layer, seed, args)
        cfg.test_dataloader.dataset.update(
            data_root='', ann_file=str(file), data_prefix=dict(img=f'{images}/')
        )
        cfg.test_evaluator.update(outfile_prefix=str(prefix), format_only=True)
        if args.quick:
            cfg.test_dataloader.dataset.indices = 8
        if task == 'person':
            cfg.test_evaluator.ann_file = str(file)
        config = Path(f'{prefix}.py')
        cfg.dump(config)
        checkpoint = folder / f'epoch_{args.epochs}.pth'
        run_tool('test.py', config, checkpoint, '--work-dir', folder / 'test')
        done.touch()
    return prefix


def study(args: argparse.Namespace) -> dict:
    """Train what is left in time, score all that is there; return the report."""
    parts = {}
    for text in args.test:
        found = [(task, find_part(task, text, args.data)) for task in args.task]
        found = [(task, part) for task, part in found if part]
        if not found and args.test != list(PARTS):
            raise InputError(f'--test: got {text!r}, expected a part of {args.data}/real_study')
        parts.update({f'{task}/{part[0].stem}': (task, *part) for task, part in found})
    report: dict = {'epochs': args.epochs}
    report['runs'] = stored_runs(report, args.output, 'epochs')
    if not weights_file(args).exists():
        source = args.data / 'mobilenet025_imagenet' / 'mobilenetV1X0.25_pretrain.tar'
        args.work_dir.mkdir(parents=True, exist_ok=True)
        run_tool('convert_retinaface.py', source, weights_file(args))
    until = time.monotonic() + 60 * args.minutes
    every = [(t, layer, s) for s in range(args.seeds) for t in args.task for layer in args.layers]

    def jobs(report: dict) -> list[tuple]:
        left = [job for job in every if run_name(job) not in report['runs']]
        return left if time.monotonic() < until else []

    pool = ThreadPoolExecutor(args.workers)
    run_all(report, args.output, jobs, partial(train, args=args), pool, args.workers)
    report['scores'] = {}
    for name, (task, file, images) in parts.items():
        runs: dict[str, list[Path]] = {layer: [] for layer in args.layers}
        for job in every:
            if job[0] == task and run_name(job) in report['runs']:
                runs[job[1]].append(test(*job, file, images, args))
        report['scores'][name] = score_runs(file, runs, resamples=20 if args.quick else 1000)
    store(report, args.output)
    return report


def main() -> None:
    """Run the study of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--task', nargs='+', choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument('--test', nargs='+', metavar='PART', default=list(PARTS))
    parser.add_argument('--layers', nargs='+', choices=LAYERS, default=list(LAYERS))
    parser.add_argument('--seeds', type=int, default=5, help='per layer (default: 5)')
    parser.add_argument('--epochs', type=int, default=8, help='of 85 iterations (default: 8)')
    parser.add_argument('--minutes', type=float, default=1e6, help='start no training after these')
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time (default: 2)')
    parser.add_argument('--quick', action='store_true', help='1 seed, 1 epoch of 16 images')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/real_images'))
    parser.add_argument('--output', type=Path, default=Path('real_images.json'))
    parser.add_argument('--table', type=Path, metavar='JSON', help='print stored results only')
    args = parser.parse_args()
    if args.quick:
        args.seeds = args.epochs = 1
    stored = json.loads(args.table.read_text(encoding='utf-8')) if args.table else study(args)
    for name, scores in stored['scores'].items():
        print('\n' + tables(name, scores))


if __name__ == '__main__':
    with one_line_errors():
        main()
