"""Does anything pile up? Many passes of layers and many images of metrics, memory watched.

    python validation/soak.py [--passes 2000] [--images 20000] [--quick] [--output FILE]

Layers run forward and backward on random shapes. Metrics are given random detections, a few
hundred images at a time, and compute their result after each round. Before memory is sampled,
garbage is collected and glibc gives back what it holds in reserve. After a warm-up (the first
third) a line is fitted to the resident memory over the passes or images; its slope and the
slope's standard error are printed, in KiB for 1,000. Samples of memory hang together, so the error
is that of a line through the means of ten stretches. The exit status is 1 if a slope exceeds
``--bound`` by more than twice its error, or if files or threads were left behind.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import polynl_mmdet  # noqa: E402, F401  Registers the layers.
from polynl_mmdet.evaluation import CheckedCocoMetric, FaceLandmarkMetric, WIDERFaceMetric  # noqa: E402
from polynl_mmdet.wider_face import WiderFaceGroundTruth, write_ground_truth  # noqa: E402

LAYERS = (
    'PolyNL', 'DoubleAttention', 'EfficientAttention', 'DisentangledNonLocal', 'SqueezeExcitation'
)  # fmt: skip
CHANNELS = (16, 32, 64)
STRETCHES = 10
SAMPLES = 60
# glibc keeps what was freed, in an amount that depends on the order of sizes.
_TRIM = getattr(ctypes.CDLL(None), 'malloc_trim', None)


def resident() -> float:
    """KiB of memory that this process holds, once the C library has given back what is free."""
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)
    with open('/proc/self/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1024


def open_files() -> int:
    """Number of file handles of this process."""
    return len(os.listdir('/proc/self/fd'))


def layer_passes(layers: list[str], rng: random.Random) -> Iterator[int]:
    """Run random layers on random shapes, forward and backward, for ever; yield 1 after each."""
    built = {
        (name, channels): MODELS.build(dict(type=name, in_channels=channels))
        for name in layers
        for channels in CHANNELS
    }
    while True:
        channels = rng.choice(CHANNELS)
        layer = built[rng.choice(layers), channels]
        shape = rng.randint(1, 3), channels, rng.randint(1, 40), rng.randint(1, 40)
        x = torch.randn(shape, requires_grad=True)
        layer(x).square().mean().backward()
        layer.zero_grad(set_to_none=True)
        yield 1


def wider_metric(folder: Path, images: int, rng: np.random.Generator) -> Iterator[int]:
    """Give the WIDER metric random detections; yield the images of each round."""
    names = [f'{n % 5}--E/p{n}' for n in sorted(range(images), key=lambda n: n % 5)]
    starts = np.arange(images + 1) * 3
    boxes = rng.uniform(5, 60, (3 * images, 4))
    counted = {name: rng.random(3 * images) < 0.7 for name in ('easy', 'medium', 'hard')}
    write_ground_truth(folder, WiderFaceGroundTruth(names, starts, boxes, counted))
    metric = WIDERFaceMetric(gt_dir=str(folder))
    while True:
        for name in names:
            sample = {'img_path': f'{name}.jpg', 'pred_instances': detections(rng)}
            metric.process({}, [sample])
        metric.evaluate(images)
        yield images


def landmark_metric(images: int, rng: np.random.Generator) -> Iterator[int]:
    """Give the landmark metric random detections; yield the images of each round."""
    metric = FaceLandmarkMetric()
    while True:
        for _ in range(images):
            found = detections(rng)
            truth = {**detections(rng), 'keypoints_visible': np.ones((20, 5))}
            for part in (found, truth):
                part['keypoints'] = rng.uniform(0, 99, (20, 5, 2))
            metric.process({}, [{'gt_instances': truth, 'pred_instances': found}])
        metric.evaluate(images)
        yield images


def coco_metric(folder: Path, images: int, rng: np.random.Generator) -> Iterator[int]:
    """Give the COCO metric random detections; yield the images of each round."""
    entries = [dict(id=n, file_name=f'{n}.jpg', height=99, width=99) for n in range(images)]
    annotations = [
        dict(id=n, image_id=n // 2, category_id=n % 2 + 1, iscrowd=0, area=b[2] * b[3], bbox=b)
        for n, b in enumerate(rng.uniform(5, 50, (2 * images, 4)).tolist())
    ]
    categories = [dict(id=1, name='a'), dict(id=2, name='b')]
    path = folder / 'coco.json'
    path.write_text(
        json.dumps(dict(images=entries, annotations=annotations, categories=categories))
    )
    with redirect_stdout(open(os.devnull, 'w', encoding='utf-8')) as silence, silence:
        metric = CheckedCocoMetric(ann_file=str(path), metric='bbox')
    metric.dataset_meta = dict(classes=('a', 'b'))
    while True:
        with open(os.devnull, 'w', encoding='utf-8') as silence, redirect_stdout(silence):
            for n in range(images):
                instances = {k: torch.from_numpy(v) for k, v in detections(rng).items()}
                instances['labels'] = torch.from_numpy(rng.integers(0, 2, 20))
                sample = dict(img_id=n, ori_shape=(99, 99), pred_instances=instances)
                metric.process({}, [sample])
            metric.evaluate(images)
        yield images


def detections(rng: np.random.Generator, count: int = 20) -> dict[str, np.ndarray]:
    """Random boxes and scores."""
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 40, (count, 2))], axis=1)
    return {'bboxes': boxes, 'scores': rng.random(count)}


def watch(steps: Iterator[int], total: int) -> list[tuple[int, float]]:
    """Take steps up to a total, and sample the memory.

    Returns:
        list[tuple[int, float]]: Steps taken, and KiB.
    """
    samples = []
    done = seen = 0
    while done < total:
        done += next(steps)
        if done >= seen:
            samples.append((done, resident()))
            seen = done + total / SAMPLES
    return samples


def slope(samples: list[tuple[int, float]]) -> tuple[float, float]:
    """Slope of the memory after the warm-up.

    Args:
        samples (list[tuple[int, float]]): Steps and KiB.

    Returns:
        tuple[float, float]: KiB for 1,000 steps by least squares, and the standard error of the
        slope of a line through the means of ten stretches.
    """
    kept = np.array(samples[len(samples) // 3 :], dtype=float)
    fitted = np.polyfit(kept[:, 0], kept[:, 1], 1)[0] * 1000
    means = np.array([part.mean(axis=0) for part in np.array_split(kept, STRETCHES) if len(part)])
    steps = means[:, 0] - means[:, 0].mean()
    residuals = means[:, 1] - np.polyval(np.polyfit(steps, means[:, 1], 1), steps)
    variance = (residuals**2).sum() / max(len(means) - 2, 1)
    return float(fitted), float(np.sqrt(variance / (steps**2).sum()) * 1000)


def soak(name: str, make: Callable[[], Iterator[int]], total: int, bound: float) -> dict:
    """Watch one workload.

    Returns:
        dict: Its slope and error, what it left behind, and whether that passes.
    """
    before = open_files(), threading.active_count()
    steps = make()
    next(steps)  # Its imports, and the threads that libraries keep.
    started = open_files(), threading.active_count()
    samples = watch(steps, total)
    kib, error = slope(samples)
    left = open_files() - started[0], threading.active_count() - started[1]
    steps.close()
    passed = kib - 2 * error <= bound and max(left) <= 0
    print(
        f'{name:<22}{total:>8} {samples[len(samples) // 3][1] / 1024:>8.1f} '
        f'{samples[-1][1] / 1024:>8.1f} {kib:>9.1f} +- {error:<8.1f}{left[0]:>4}{left[1]:>8}  '
        f'{"ok" if passed else "TOO MUCH"}',
        flush=True,
    )
    return dict(
        name=name, total=total, slope_KiB=kib, error_KiB=error, files_left=left[0],
        threads_left=left[1], files_before=before[0], threads_before=before[1], passed=passed,
    )  # fmt: skip


def main() -> int:
    """Run all workloads and print a table; 1 if memory, files or threads pile up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--passes', type=int, default=2000, help='of layers')
    parser.add_argument('--images', type=int, default=20000, help='of each metric')
    parser.add_argument('--bound', type=float, default=1024.0, help='KiB for 1,000 (default: 1024)')
    parser.add_argument('--quick', action='store_true', help='60 passes, 600 images; no bound')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--output', help='JSON to write')
    args = parser.parse_args()
    if args.quick:
        args.passes, args.images, args.bound = 60, 600, float('inf')
    init_default_scope('mmdet')
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    a_round = max(10, min(200, args.images // 20))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workloads = {
            'PolyNL': lambda: layer_passes(['PolyNL'], random.Random(args.seed)),
            'five layers': lambda: layer_passes(list(LAYERS), random.Random(args.seed)),
            'WIDERFaceMetric': lambda: wider_metric(folder / 'gt', a_round, rng),
            'FaceLandmarkMetric': lambda: landmark_metric(a_round, rng),
            'CheckedCocoMetric': lambda: coco_metric(folder, a_round, rng),
        }
        print(
            f'{"":<22}{"steps":>8} {"MiB from":>8} {"to":>8} {"KiB for 1,000":>21} {"files":>5}'
            f'{"threads":>8}'
        )
        rows = [
            soak(
                name,
                make,
                args.images if 'Metric' in name else args.passes,
                args.bound,
            )
            for name, make in workloads.items()
        ]
    if args.output:
        report = {'rows': rows, 'bound_KiB': args.bound, 'torch': torch.__version__}
        Path(args.output).write_text(json.dumps(report, indent=1), encoding='utf-8')
    return int(not all(row['passed'] for row in rows))


if __name__ == '__main__':
    raise SystemExit(main())
