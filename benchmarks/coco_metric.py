"""Time of COCO's evaluation by pycocotools and by faster-coco-eval, on synthetic detections.

    python benchmarks/coco_metric.py --images 5000 --output coco_metric.json

Images of 640 x 480 have 7 objects on average, of 80 classes, and 50 detections: objects that were
moved, and inventions. Both backends of CheckedCocoMetric get the same in turns, box and mask; the
script ends with status 1 if a figure differs. ``--quick`` is a check that it runs.
"""

from __future__ import annotations

import sys
from os.path import abspath, dirname

# As in operator.py, which lies beside this file: keep it from hiding a standard module.
sys.path[0] = dirname(dirname(abspath(__file__)))

import argparse  # noqa: E402
import contextlib  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from pycocotools import mask as coco_mask  # noqa: E402

from benchmarks.measure import machine, markdown  # noqa: E402
from polynl_mmdet.evaluation import CheckedCocoMetric  # noqa: E402

HEIGHT, WIDTH, CLASSES, DETECTIONS = 480, 640, 80, 50
BACKENDS = ('pycocotools', 'faster')
KINDS = ('bbox', 'segm')


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--repeats', type=int, default=3, help='of which the median counts')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--quick', action='store_true', help='40 images')
    parser.add_argument('--output', type=Path, help='JSON file')
    args = parser.parse_args()
    images = 40 if args.quick else args.images
    content, samples = make_data(np.random.default_rng(args.seed), images)
    times, figures = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'instances.json')
        path.write_text(json.dumps(content))
        for _ in range(1 if args.quick else args.repeats):
            for kind in KINDS:
                for backend in BACKENDS:
                    taken, figures[kind, backend] = evaluate(str(path), samples, kind, backend)
                    times.setdefault(f'{kind} {backend}', []).append(taken)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    report = dict(machine=machine('cpu'), images=images, seconds=seconds)
    print(table(report))
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + '\n')
    if any(figures[kind, 'faster'] != figures[kind, 'pycocotools'] for kind in KINDS):
        raise SystemExit(f'figures differ: {figures}')


def table(report: dict) -> str:
    """str: medians, and what a training with a validation after each of 12 epochs saves."""
    seconds = report['seconds']
    rows = [[k, *(f'{seconds[f"{k} {backend}"]:.1f}' for backend in BACKENDS)] for k in KINDS]
    saved = sum(seconds[f'{k} pycocotools'] - seconds[f'{k} faster'] for k in KINDS)
    images = report['images']
    header = [f'{images:,} images, {images * DETECTIONS:,} detections: seconds', *BACKENDS]
    return f'{markdown(header, rows)}\n\n12 evaluations of both save {12 * saved / 60:.1f} minutes.'


def make_data(rng: np.random.Generator, images: int) -> tuple[dict, list[dict]]:
    """Make annotations and, as a detector would give them, detections.

    Args:
        rng (np.random.Generator): Source of all randomness.
        images (int): How many.

    Returns:
        tuple: A COCO annotation file's content, and a data sample of each image.
    """
    content = dict(
        images=[
            dict(id=n, file_name=f'{n}.jpg', height=HEIGHT, width=WIDTH) for n in range(images)
        ],
        annotations=[],
        categories=[dict(id=n + 1, name=f'class {n}') for n in range(CLASSES)],
    )
    samples = []
    for image in range(images):
        objects = rng.integers(1, 14)
        boxes, labels = random_boxes(rng, objects), rng.integers(CLASSES, size=objects)
        for box, label, mask in zip(boxes, labels, ellipses(boxes)):
            x1, y1, x2, y2 = box.tolist()
            annotation = dict(
                id=len(content['annotations']) + 1,
                image_id=image,
                category_id=int(label) + 1,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=float(coco_mask.area(mask)),
                iscrowd=0,
                segmentation=dict(mask, counts=mask['counts'].decode()),
            )
            content['annotations'].append(annotation)
        chosen = rng.integers(objects, size=DETECTIONS)
        near = rng.random(DETECTIONS) < 0.5
        found = np.where(near[:, None], boxes[chosen], random_boxes(rng, DETECTIONS))
        found = found + rng.normal(0, 4, found.shape)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 2)
        guesses = np.where(near, labels[chosen], rng.integers(CLASSES, size=DETECTIONS))
        instances = dict(
            bboxes=torch.from_numpy(found),
            scores=torch.from_numpy(rng.random(DETECTIONS)),
            labels=torch.from_numpy(guesses),
            masks=ellipses(found),
        )
        samples.append(dict(img_id=image, ori_shape=(HEIGHT, WIDTH), pred_instances=instances))
    return content, samples


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw boxes of all of COCO's sizes: x1, y1, x2, y2, shape (count, 4)."""
    size = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
    corner = rng.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - size)
    return np.concatenate([corner, corner + size], axis=1)


def ellipses(boxes: np.ndarray) -> list[dict]:
    """Return the ellipses inside boxes as run lengths."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    polygons = centres[:, None] + halves[:, None] * circle
    return coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], HEIGHT, WIDTH)


def evaluate(
    path: str, samples: list[dict], kind: str, backend: str
) -> tuple[float, dict[str, float]]:
    """Evaluate once; return the seconds of computing the metrics, and the metrics."""
    with contextlib.redirect_stdout(io.StringIO()):
        metric = CheckedCocoMetric(path, metric=kind, backend=backend)
        metric.dataset_meta = dict(classes=tuple(f'class {n}' for n in range(CLASSES)))
        metric.process({}, samples)
        begin = time.perf_counter()
        figures = metric.evaluate(len(samples))
    return time.perf_counter() - begin, figures


if __name__ == '__main__':
    main()
