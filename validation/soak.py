"""Run layers and metrics for long, and look whether memory, files or threads pile up.

    python validation/soak.py [--passes 2000] [--images 20000]

Layers run forward and backward on random shapes. Metrics are given random detections, some at a
time, and compute their result after each round. Before memory is sampled, garbage is collected and
glibc gives back what it holds in reserve. After a warm-up (the first third) a line is fitted to the
resident memory over the passes or images, through the means of ten stretches, since samples of
memory hang together; its slope and the slope's standard error are printed, in KiB for 1,000. The
exit status is 1 if a slope exceeds ``--bound`` by more than twice its error, or if files or threads
were left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import logging
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import polynl_mmdet  # noqa: F401  Registers the layers.
from benchmarks.measure import markdown
from polynl_mmdet.evaluation import CheckedCocoMetric, FaceLandmarkMetric, WIDERFaceMetric
from polynl_mmdet.wider_face import WiderFaceGroundTruth, write_ground_truth

LAYERS = (
    'PolyNL', 'DoubleAttention', 'EfficientAttention', 'DisentangledNonLocal', 'SqueezeExcitation'
)  # fmt: skip
STRETCHES, SAMPLES, FACES = 10, 60, 20
HEADER = ['', 'steps', 'MiB from', 'to', 'KiB for 1,000', 'files', 'threads']
# glibc keeps what was freed, in an amount that depends on the order of sizes.
_TRIM = getattr(ctypes.CDLL(None), 'malloc_trim', lambda pad: None)


def resident() -> float:
    """Return the KiB that this process holds, once the C library has given back what is free."""
    gc.collect()
    _TRIM(0)
    with open('/proc/self/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1024


def handles() -> np.ndarray:
    """Return the number of open files and of threads."""
    return np.array([len(os.listdir('/proc/self/fd')), threading.active_count()])


def layer_passes(*names: str) -> Iterator[int]:
    """Run random layers on random shapes, forward and backward, for ever; yield 1 after each."""
    draw = random.Random(0)
    sizes = (16, 32, 64)
    built = {(n, c): MODELS.build(dict(type=n, in_channels=c)) for n in names for c in sizes}
    while True:
        name, channels = draw.choice(list(built))
        shape = draw.randint(1, 3), channels, draw.randint(1, 40), draw.randint(1, 40)
        built[name, channels](torch.randn(shape, requires_grad=True)).square().mean().backward()
        built[name, channels].zero_grad(set_to_none=True)
        yield 1


def detections(draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random boxes, scores, labels and landmarks."""
    corners = draw.uniform(0, 60, (FACES, 2))
    return dict(
        bboxes=np.concatenate([corners, corners + draw.uniform(1, 40, (FACES, 2))], axis=1),
        scores=draw.random(FACES),
        labels=draw.integers(0, 2, FACES),
        keypoints=draw.uniform(0, 99, (FACES, 5, 2)),
        keypoints_visible=np.ones((FACES, 5)),
    )


def metric_rounds(metric: BaseMetric, names: list[str]) -> Iterator[int]:
    """Give a metric random detections on all images, for ever; yield their number each time."""
    draw = np.random.default_rng(0)
    while True:
        with open(os.devnull, 'w') as silence, contextlib.redirect_stdout(silence):
            for number, name in enumerate(names):
                found = {key: torch.from_numpy(part) for key, part in detections(draw).items()}
                sample = dict(img_path=name, img_id=number, ori_shape=(99, 99))
                sample.update(pred_instances=found, gt_instances=detections(draw))
                metric.process({}, [sample])
            metric.evaluate(len(names))
        yield len(names)


def make_metrics(folder: Path, images: int) -> tuple[list[BaseMetric], list[str]]:
    """Write random ground truth of some images; return the metrics and the images' names."""
    draw = np.random.default_rng(0)
    names = sorted(f'{n % 5}--E/p{n}' for n in range(images))
    counted = {name: draw.random(3 * images) < 0.7 for name in ('easy', 'medium', 'hard')}
    boxes = draw.uniform(5, 60, (3 * images, 4))
    truth = WiderFaceGroundTruth(names, np.arange(images + 1) * 3, boxes, counted)
    write_ground_truth(folder, truth)
    annotations = [
        dict(id=n, image_id=n // 3, category_id=n % 2, iscrowd=0, area=box[2] * box[3], bbox=box)
        for n, box in enumerate(boxes.tolist())
    ]
    entries = [dict(id=n, file_name=f'{n}.jpg', height=99, width=99) for n in range(images)]
    categories = [dict(id=n, name=f'class {n}') for n in range(2)]
    content = dict(images=entries, annotations=annotations, categories=categories)
    (folder / 'coco.json').write_text(json.dumps(content))
    with open(os.devnull, 'w') as silence, contextlib.redirect_stdout(silence):
        coco = CheckedCocoMetric(ann_file=str(folder / 'coco.json'), metric='bbox')
    coco.dataset_meta = dict(classes=('class 0', 'class 1'))
    metrics = [WIDERFaceMetric(gt_dir=str(folder)), FaceLandmarkMetric(), coco]
    return metrics, [f'{name}.jpg' for name in names]


def watch(steps: Iterator[int], total: int) -> list[tuple[int, float]]:
    """Take steps up to a total; return samples of the number of steps and the KiB of memory."""
    gc.freeze()  # What is there before needs no looking through for every sample.
    samples, done, due = [], 0, 0.0
    while done < total:
        done += next(steps)
        if done >= due:
            samples.append((done, resident()))
            due = done + total / SAMPLES
    return samples


def slope(samples: list[tuple[int, float]]) -> tuple[float, float]:
    """Return the KiB for 1,000 steps after the warm-up, and the standard error."""
    stretches = np.array_split(np.array(samples[len(samples) // 3 :], dtype=float), STRETCHES)
    steps, memory = np.array([part.mean(axis=0) for part in stretches if len(part)]).T
    (kib, _), covariance = np.polyfit(steps, memory, 1, cov=True)
    return float(kib) * 1000, float(covariance[0, 0]) ** 0.5 * 1000


def soak(name: str, steps: Iterator[int], total: int, bound: float) -> tuple[list[str], bool]:
    """Watch one workload; return a row of the table, and whether nothing piles up."""
    next(steps)  # Its imports, and the threads that libraries keep.
    before = handles()
    samples = watch(steps, total)
    kib, error = slope(samples)
    files, threads = handles() - before
    memory = [f'{samples[n][1] / 1024:.1f}' for n in (len(samples) // 3, -1)]
    row = [name, f'{total:,}', *memory, f'{kib:.0f} +- {error:.0f}', str(files), str(threads)]
    return row, kib - 2 * error <= bound and max(files, threads) <= 0


def main() -> int:
    """Run all workloads and print a table; 1 if memory, files or threads pile up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--passes', type=int, default=2000, help='of layers')
    parser.add_argument('--images', type=int, default=20000, help='of each metric')
    parser.add_argument('--bound', type=float, default=1024.0, help='KiB for 1,000 (default: 1024)')
    args = parser.parse_args()
    init_default_scope('mmdet')
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        metrics, names = make_metrics(Path(name), max(10, min(200, args.images // 20)))
        found = [
            soak('PolyNL', layer_passes('PolyNL'), args.passes, args.bound),
            soak('five layers', layer_passes(*LAYERS), args.passes, args.bound),
        ]
        for metric in metrics:
            steps = metric_rounds(metric, names)
            found.append(soak(type(metric).__name__, steps, args.images, args.bound))
    print(markdown(HEADER, [row for row, _ in found]))
    return int(not all(passed for _, passed in found))


if __name__ == '__main__':
    raise SystemExit(main())
