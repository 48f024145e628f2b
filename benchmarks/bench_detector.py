"""What a layer adds to Mask R-CNN R50-FPN: parameters, operations, time.

    python benchmarks/bench_detector.py --threads 2 --output detector.json

All detectors have the same random weights and their layers start as the identity, so all see the
same proposals. `forward` is the network with its heads, without NMS of the detections; `step` is
losses, backward and an SGD update. Needs mmdet.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from statistics import median
from typing import Callable

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from timing import interleaved_times, machine, markdown, write_json

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'mask_rcnn'
CONTEXT_BLOCKS = dict(
    cfg=dict(type='ContextBlock', ratio=1.0 / 16),
    stages=(False, True, True, True),
    position='after_conv3',
)
DETECTORS = {
    'none': ('mask-rcnn_r50_fpn_1x_coco.py', {}),
    'Poly-NL c4': ('mask-rcnn_r50-polynl-site-c4_fpn_1x_coco.py', {}),
    'Poly-NL c3-c5': ('mask-rcnn_r50-polynl-c3-c5_fpn_1x_coco.py', {}),
    'NonLocal2d c4': ('mask-rcnn_r50-nl-site-c4_fpn_1x_coco.py', {}),
    'GC c3-c5': ('mask-rcnn_r50_fpn_1x_coco.py', {'model.backbone.plugins': [CONTEXT_BLOCKS]}),
}


def build(name: str, args: argparse.Namespace) -> torch.nn.Module:
    """Return a detector with random weights."""
    path, changes = DETECTORS[name]
    cfg = Config.fromfile(CONFIGS / path)
    cfg.merge_from_dict({'model.backbone.init_cfg': None, **changes})
    if args.quick:
        cfg.model.test_cfg.rpn.max_per_img = 20
        cfg.model.train_cfg.rcnn.sampler.num = 20
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(args.device)


def complexity(model: torch.nn.Module, data: dict) -> dict:
    """Return parameters and operations (a multiply-add is 1) of a forward pass."""
    model.eval()
    forward = model.forward
    model.forward = partial(forward, data_samples=data['data_samples'])
    try:
        return get_model_complexity_info(
            model, None, inputs=data['inputs'], show_table=False, show_arch=False
        )
    finally:
        model.forward = forward


def forward_function(model: torch.nn.Module, data: dict, autocast: Callable) -> Callable:
    """Return a function that runs the network once."""

    def forward() -> None:
        model.eval()
        with torch.no_grad(), autocast():
            model(data['inputs'], data['data_samples'], mode='tensor')

    return forward


def step_function(model: torch.nn.Module, data: dict, autocast: Callable) -> Callable:
    """Return a function that trains once; its learning rate leaves the proposals as they are."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)

    def step() -> None:
        model.train()
        with autocast():
            losses = model(data['inputs'], data['data_samples'], mode='loss')
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()

    return step


def show(rows: list[dict]) -> None:
    """Print what has been measured so far."""
    quantities = [quantity for quantity in ('forward', 'step') if quantity in rows[0]]
    header = ['', 'M parameters', 'G operations']
    header += [title for quantity in quantities for title in (f'{quantity} s', 'added')]
    cells = [
        [row['name'], f'{row["params"] / 1e6:.2f}', f'{row["flops"] / 1e9:.1f}']
        + [s for q in quantities for s in (f'{row[q]:.2f}', f'{row[f"{q} added"]:+.1%}')]
        for row in rows
    ]
    print('\n' + markdown(header, cells), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument('--size', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--amp', choices=['float16', 'bfloat16'], help='autocast to this dtype')
    parser.add_argument('--quick', action='store_true', help='a small image, two detectors')
    parser.add_argument('--output', type=Path, help='JSON file')
    args = parser.parse_args()
    names = list(DETECTORS)
    if args.quick:
        args.size, names = [128, 160], names[:2]
    if args.threads:
        torch.set_num_threads(args.threads)
    register_all_modules()
    report = {'machine': machine(args.device), 'size': args.size, 'batch': args.batch}
    report['amp'] = args.amp
    print(report)
    models = {name: build(name, args) for name in names}
    for model in models.values():
        model.load_state_dict(models['none'].state_dict(), strict=False)
    shape, objects = (3, *args.size), [20] * args.batch
    data = demo_mm_inputs(args.batch, shape, objects, num_classes=80, with_mask=True)
    data = models['none'].data_preprocessor(data, training=True)
    rows = []
    for name, model in models.items():
        found = complexity(model, data)
        rows.append({'name': name, 'params': found['params'], 'flops': found['flops']})
    report['rows'] = rows
    kind, dtype = torch.device(args.device).type, getattr(torch, args.amp or 'bfloat16')
    autocast = partial(torch.autocast, kind, dtype, enabled=bool(args.amp))
    for quantity, make, rounds in (
        ('forward', forward_function, 7),
        ('step', step_function, 3),
    ):
        runs = {name: make(model, data, autocast) for name, model in models.items()}
        times = interleaved_times(runs, args.device, 0.0, 1 if args.quick else rounds, 1)
        for row in rows:
            mine = times[row['name']]
            row[quantity] = median(mine)
            # Differences within a round: what slows down a whole round cancels.
            row[f'{quantity} added'] = median(a / b - 1 for a, b in zip(mine, times['none']))
        show(rows)
        write_json(report, args.output)


if __name__ == '__main__':
    main()
