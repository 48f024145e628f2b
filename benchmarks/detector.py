"""What a layer adds to Mask R-CNN R50-FPN: time, parameters, floating-point operations.

    python benchmarks/detector.py --threads 2 --output detector.json

Weights are random and the same in all detectors, whose layers start as the identity: all of them
see the same proposals. ``forward`` is the whole network, heads on proposals included, without the
final non-maximum suppression; ``step`` is losses, backward pass and an SGD update, with frozen stem
and norm statistics as in mmdet's schedule. Needs mmdet. ``--quick`` is a check that it runs.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.pop(1)  # This folder: operator.py in it would hide the standard library's.

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config

from benchmarks.measure import interleaved_times, machine, markdown
from benchmarks.study import store

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
CONTEXT_BLOCKS = dict(
    cfg=dict(type='ContextBlock', ratio=1.0 / 16),
    stages=(False, True, True, True),
    position='after_conv3',
)
DETECTORS = {
    'none': ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', {}),
    'Poly-NL c4': ('mask_rcnn/mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py', {}),
    'Poly-NL c3-c5': ('mask_rcnn/mask-rcnn_r50-polynl-c3-c5_fpn_1x_coco.py', {}),
    'NonLocal2d c4': ('mask_rcnn/mask-rcnn_r50-nl-site-c4_fpn_1x_coco.py', {}),
    'GC c3-c5': (
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        {'model.backbone.plugins': [CONTEXT_BLOCKS]},
    ),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument('--detectors', nargs='+', choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument('--size', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument(
        '--amp',
        choices=['float16', 'bfloat16'],
        help='autocast to this dtype, as tools/train.py --amp',
    )
    parser.add_argument('--rounds', type=int, default=7, help='forward passes of each detector')
    parser.add_argument('--steps', type=int, default=3, help='training steps of each detector')
    parser.add_argument('--quick', action='store_true', help='a small image, one round')
    parser.add_argument('--output', type=Path, help='JSON file')
    args = parser.parse_args()
    if args.detectors[0] != 'none':
        parser.error(f'--detectors: starts with {args.detectors[0]!r}; accepted: none first')
    if args.quick:
        args.size, args.rounds, args.steps = [128, 160], 1, 1
    if args.threads:
        torch.set_num_threads(args.threads)
    register_all_modules()
    report = {
        'machine': machine(args.device),
        'size': args.size,
        'batch': args.batch,
        'amp': args.amp,
    }
    print(f'{report["machine"]}, AMP: {args.amp}, {args.batch} x {args.size[0]} x {args.size[1]}')
    models = _build(args)
    data = _data(models['none'], args)
    report['rows'] = rows = [_weigh(name, model, data) for name, model in models.items()]
    cast = partial(
        torch.autocast,
        torch.device(args.device).type,
        getattr(torch, args.amp or 'float16'),
        enabled=bool(args.amp),
    )
    forward = {name: partial(_forward, model, data, cast) for name, model in models.items()}
    step = {name: _stepper(model, data, cast) for name, model in models.items()}
    for quantity, functions, rounds in (
        ('forward', forward, args.rounds),
        ('step', step, args.steps),
    ):
        times = interleaved_times(functions, args.device, 0.0, rounds, 1)
        for row in rows:
            mine = times[row['name']]
            row[quantity] = median(mine)
            # Differences within a round: what disturbs a whole round cancels.
            row[f'{quantity} added'] = median(a / b - 1 for a, b in zip(mine, times['none']))
        _show(rows)
        store(report, args.output)


def _build(args: argparse.Namespace) -> dict[str, torch.nn.Module]:
    """The detectors, all with the first one's weights where they have the same ones."""
    models = {}
    for name in args.detectors:
        path, changes = DETECTORS[name]
        cfg = Config.fromfile(CONFIGS / path)
        cfg.merge_from_dict({'model.backbone.init_cfg': None, **changes})
        if args.quick:
            cfg.model.test_cfg.rpn.max_per_img = 20
            cfg.model.train_cfg.rcnn.sampler.num = 20
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        model.to(args.device)
        if models:
            state = models['none'].state_dict()
            unknown = model.load_state_dict(state, strict=False).unexpected_keys
            if unknown:
                raise SystemExit(f'{name}: lacks {unknown[0]}, which the plain detector has')
        models[name] = model
    return models


def _data(model: torch.nn.Module, args: argparse.Namespace) -> dict:
    """A batch of noise with twenty objects an image, as the data preprocessor hands it on."""
    shape = (3, *args.size)
    objects = [20] * args.batch
    data = demo_mm_inputs(args.batch, shape, objects, num_classes=80, with_mask=True)
    return model.data_preprocessor(data, training=True)


def _forward(model: torch.nn.Module, data: dict, cast: Callable) -> None:
    model.eval()
    with torch.no_grad(), cast():
        model(data['inputs'], data['data_samples'], mode='tensor')


def _stepper(model: torch.nn.Module, data: dict, cast: Callable) -> Callable[[], None]:
    """A function that trains once; the learning rate is too small to change the proposals."""
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1e-9, momentum=0.9
    )

    def step() -> None:
        model.train()
        with cast():
            losses = model(data['inputs'], data['data_samples'], mode='loss')
            total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return step


def _weigh(name: str, model: torch.nn.Module, data: dict) -> dict:
    """Parameters and floating-point operations (products counted once) of a forward pass."""
    model.eval()
    whole = model.forward
    model.forward = partial(whole, data_samples=data['data_samples'])
    try:
        found = get_model_complexity_info(
            model, None, inputs=data['inputs'], show_table=False, show_arch=False
        )
    finally:
        model.forward = whole
    return {'name': name, 'params': found['params'], 'flops': found['flops']}


def _show(rows: list[dict]) -> None:
    """Print what has been measured so far."""
    measured = [quantity for quantity in ('forward', 'step') if quantity in rows[0]]
    header = ['', 'M parameters', 'GFLOPs']
    for quantity in measured:
        header += [f'{quantity} s', 'added']
    cells = []
    for row in rows:
        line = [row['name'], f'{row["params"] / 1e6:.2f}', f'{row["flops"] / 1e9:.1f}']
        for quantity in measured:
            line += [f'{row[quantity]:.2f}', f'{row[f"{quantity} added"]:+.1%}']
        cells.append(line)
    print('\n' + markdown(header, cells), flush=True)


if __name__ == '__main__':
    main()
