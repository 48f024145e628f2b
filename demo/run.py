"""Train, test and report on a small detector with Poly-NL, on drawn images, on a CPU in minutes.

Examples:
    python -m demo.run shapes    # Mask R-CNN
    python -m demo.run faces     # RetinaFace
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from demo.files import is_drawn
from demo.toy_coco import make_toy_coco
from demo.toy_wider import make_toy_wider
from polynl_mmdet.errors import one_line_errors
from tools.report_run import report

CONFIGS = Path(__file__).parents[1] / 'configs' / 'demo'
# Work folder, config, how to draw its data, side of an image, test-time augmentation.
DEMOS = {
    'shapes': (
        'work_dirs/demo', CONFIGS / 'mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco.py',
        make_toy_coco, 160, False,
    ),
    'faces': (
        'work_dirs/demo-face',
        CONFIGS / 'retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider.py',
        make_toy_wider, 256, True,
    ),
}  # fmt: skip
SHOWN = {
    'coco/bbox_mAP': 'box AP',
    'coco/segm_mAP': 'mask AP',
    'coco/segm_mAP_50': 'mask AP50',
    'wider_face/easy': 'Easy AP',
    'wider_face/medium': 'Medium AP',
    'wider_face/hard': 'Hard AP',
    'face_landmarks/nme': 'landmark error',
    'face_landmarks/false_boxes': 'false boxes per image',
}
MEANING = {
    'shapes': 'AP averages IoU 0.5 to 0.95, AP50 is at IoU 0.5; 1 is perfect.',
    'faces': "WIDER FACE's protocol, Hard counts faces from 8 pixels; 1 is perfect. The landmark "
    'error is relative to the distance of the eyes.',
}
YOURS = {
    'shapes': 'python -c "from mmdet.apis import DetInferencer; '
    "DetInferencer('{config}', '{checkpoint}', device='cpu')('IMAGE.jpg', out_dir='outputs')\"",
    'faces': 'python tools/face_demo.py IMAGE {config} {checkpoint} --out faces',
}


class ProgressHook(Hook):
    """Show a training as a progress bar."""

    def before_train(self, runner: Runner) -> None:
        """Start the bar."""
        self.bar = tqdm(
            desc='training',
            total=runner.max_iters,
            file=sys.__stderr__,
            mininterval=0.5 if sys.__stderr__.isatty() else 30,
            bar_format='{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt}, '
            'elapsed {elapsed}, ETA {remaining}{postfix}',
        )

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None):
        """Count the iteration and show its loss."""
        self.bar.set_postfix_str(f'loss {float(outputs["loss"]):.3f}', refresh=False)
        self.bar.update()

    def after_train(self, runner: Runner) -> None:
        """Leave the bar as it is."""
        self.bar.close()


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Write what is printed into a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = log.open('w', encoding='utf-8')  # mmengine's logger keeps it
    with redirect_stdout(file), redirect_stderr(file):
        yield
    file.flush()


def train(cfg: Config, work_dir: Path) -> None:
    """Train from scratch; mmengine's output goes into a file."""
    cfg.work_dir = str(work_dir)
    with output_to(work_dir / 'train.log'):
        runner = Runner.from_cfg(cfg)
        runner.register_hook(ProgressHook())
        runner.train()


def main() -> None:
    """Run a demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('demo', choices=DEMOS)
    parser.add_argument('--train', type=int, default=2000, help='training images (default: 2000)')
    parser.add_argument('--val', type=int, default=80, help='validation images (default: 80)')
    parser.add_argument('--seed', type=int, default=0, help='of images and weights (default: 0)')
    parser.add_argument('--epochs', type=int, help="default: the config's")
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/demo or demo-face')
    args = parser.parse_args()
    folder, config, draw, size, tta = DEMOS[args.demo]
    work_dir = args.work_dir or Path(folder)
    settings = dict(train=args.train, val=args.val, seed=args.seed, size=size)
    with one_line_errors():
        cfg = Config.fromfile(config)
        cfg.randomness.seed = args.seed
        if args.epochs:
            cfg.train_cfg.update(max_epochs=args.epochs, val_interval=args.epochs)
            cfg.param_scheduler[1].update(T_max=args.epochs, end=args.epochs)
            cfg.default_hooks.checkpoint.interval = args.epochs
        data = Path(cfg.data_root)
        if not is_drawn(data, **settings):
            draw(data, **settings)
        shutil.rmtree(work_dir, ignore_errors=True)
        print(f'{config.stem}, log: {work_dir / "train.log"}', flush=True)
        train(cfg, work_dir)
        with output_to(work_dir / 'test.log'):
            metrics = report(work_dir, tta=tta)
    figures = [f'{name} {metrics[key]:.3f}' for key, name in SHOWN.items() if key in metrics]
    print(f'{args.val} test images: {", ".join(figures)}\n({MEANING[args.demo]})')
    print(f'annotation left, prediction right: {work_dir}/report/images.jpg')
    print(f'losses, AP, confusion matrix: {work_dir}/report')
    checkpoint = os.path.relpath((work_dir / 'last_checkpoint').read_text())
    yours = YOURS[args.demo].format(config=os.path.relpath(config), checkpoint=checkpoint)
    print(f'your own images: {yours}')


if __name__ == '__main__':
    main()
