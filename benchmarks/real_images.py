"""What a layer does on real images: people and faces, a pretrained backbone, many seeds.

    python benchmarks/real_images.py --data ../shared/data --minutes 120

Trains the two detectors of configs/studies, without a layer and with one at the stride-16 level
before the pyramid (LevelContext), and scores them on every --test part: an annotation file of
DATA/real_study by its name ('val', 'masks_val', ...), or any other by its path; its images are
looked for in the folders beside the annotations'. Each finished run is stored at once; the same
command goes on where it stopped, and other parts are scored without training again. Images with the
annotations and the detections of each layer's first seed are drawn into --work-dir.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.pop(1)  # This folder: operator.py in it would hide the standard library's.

import argparse
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from mmengine.config import Config

from benchmarks import study
from benchmarks.measure import machine
from benchmarks.real_images_montage import draw_montage
from benchmarks.real_images_tables import Part, show_tables
from benchmarks.study import ROOT, train_detector
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.wider_face.annotations import read_annotations

LAYERS: dict[str, dict | None] = {
    'none': None,
    'PolyNL': dict(type='PolyNL'),
    'PolyNL-LN': dict(type='PolyNL', context_norm=dict(type='LN')),
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
        if not (file.is_file() and file.suffix == Path(after).suffix):
            return None
    if task == 'person':
        images = json.loads(file.read_text(encoding='utf-8'))['images']
        first = images[0]['file_name'] if images else ''
    else:
        first = next(iter(read_annotations(file).names), '')
    folders = [p for p in sorted(file.resolve().parent.parent.iterdir()) if p.is_dir()]
    for folder in (sub for p in folders for sub in (p, p / 'images')):
        if first and (folder / first).is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
            stem = file.name.removeprefix(before).removesuffix(after)
            return Part(task, f'{stem}-{digest}', file.resolve(), folder)
    raise InputError(str(file), f'{first!r} is in no folder beside it', 'accepted: DIR/images')


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
    cfg = Config.fromfile(ROOT / 'configs' / 'studies' / CONFIGS[task])
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
    configure(task, layer, seed, args).dump(folder / 'train.py')
    found, records = train_detector(folder / 'train.py', folder)
    return {**found, 'loss': [record['loss'] for record in records if 'loss' in record][-1]}


def test(task: str, layer: str, seed: int, part: Part, args: argparse.Namespace) -> None:
    """Write a trained detector's detections in a part's images, once."""
    folder = run_dir(task, layer, seed, args)
    done, config = folder / f'{part.name}.done', folder / f'{part.name}.py'
    if not done.exists():
        for_testing(configure(task, layer, seed, args), part, folder / part.name).dump(config)
        checkpoint = folder / f'epoch_{args.epochs}.pth'
        study.run_tool('test.py', config, checkpoint, '--work-dir', folder / 'test')
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
    parser.add_argument('--resamples', type=int, default=1000, help='of the bootstrap')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/real_images'))
    parser.add_argument('--output', type=Path, default=Path('real_images.json'))
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Train and test what is left, score all that is there, print the tables."""
    parts = find_parts(args)
    report = {
        'command': ' '.join(['python benchmarks/real_images.py', *sys.argv[1:]]),
        'machine': dict(machine('cpu'), threads=1, workers=args.workers),
        'epochs': args.epochs,
    }
    report['runs'] = study.take_up(report, args.output, 'epochs')
    if not weights_file(args).exists():
        source = args.data / 'mobilenet025_imagenet' / 'mobilenetV1X0.25_pretrain.tar'
        study.run_tool('convert_retinaface.py', source, weights_file(args))
    jobs = [(t, layer, s) for s in range(args.seeds) for t in args.task for layer in args.layers]

    def left(report: dict) -> list[tuple]:
        return [job for job in jobs if study.run_name(job) not in report['runs']]

    one, pool = partial(train, args=args), ThreadPoolExecutor(args.workers)
    study.run_all(report, args.output, left, one, pool, args.workers, args.minutes)
    done = [job for job in jobs if study.run_name(job) in report['runs']]
    with ThreadPoolExecutor(args.workers) as pool:
        tests = [
            pool.submit(test, *job, p, args) for job in done for p in parts if p.task == job[0]
        ]
    for finished in tests:
        finished.result()
    report['scores'] = {}
    for part in parts:
        runs: dict[str, dict] = {layer: {} for layer in args.layers}
        for task, layer, seed in done:
            if task == part.task:
                runs[layer][seed] = run_dir(task, layer, seed, args) / part.name
        report['scores'][f'{part.task}/{part.name}'] = show_tables(
            part, runs, args.data / 'wider_eval' / 'ground_truth', args.resamples
        )
        draw_montage(part, runs, args.work_dir / f'{part.task}-{part.name}.jpg')
    study.store(report, args.output)


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
