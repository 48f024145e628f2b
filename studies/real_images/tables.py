"""The tables of the study: a layer's AP over its seeds, and paired differences."""

from __future__ import annotations

import json
import math
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from benchmarks.measure import markdown
from polynl_mmdet.wider_face.annotations import read_annotations
from polynl_mmdet.wider_face.average_precision import SETTINGS, score_wider_face
from polynl_mmdet.wider_face.ground_truth import WiderFaceGroundTruth, read_ground_truth
from polynl_mmdet.wider_face.predictions import read_predictions
from studies.real_images.scores import ImageMatches, difference_interval
from studies.runs import mean_and_spread

KINDS = {'person': ('bbox', 'segm'), 'face': ('bbox',)}
AVERAGES = {'AP': slice(0, 10), 'AP50': slice(0, 1)}
SIZES = ('small', 'medium', 'large')
# What is scored: of which matches, at which thresholds, for objects of which area.
METRICS = {
    task: {f'{k} {name}': (k, chosen, 'all') for k in kinds for name, chosen in AVERAGES.items()}
    | {f'bbox {size}': ('bbox', AVERAGES['AP'], size) for size in SIZES}
    for task, kinds in KINDS.items()
}


@dataclass(frozen=True)
class Part:
    """Images to test on.

    Attributes:
        task (str): 'person' or 'face'.
        name (str): The annotation file's name, and a digest of its content: another file is
            another part.
        file (Path): The annotation file.
        images (Path): Folder that its image names are relative to.
    """

    task: str
    name: str
    file: Path
    images: Path


def read_truth(part: Part) -> COCO:
    """COCO: a part's annotations; ignored faces are crowds, which cost nothing if detected."""
    with redirect_stdout(StringIO()):
        if part.task == 'person':
            return COCO(str(part.file))
        faces = read_annotations(part.file)
        truth = COCO()
        truth.dataset = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'face'}]}
        ignored, boxes = faces.invalid(), faces.boxes()
        for index, name in enumerate(faces.names):
            truth.dataset['images'].append({'id': index + 1, 'file_name': name})
            for row in range(faces.starts[index], faces.starts[index + 1]):
                x1, y1, x2, y2 = boxes[row].tolist()
                truth.dataset['annotations'].append(
                    {
                        'id': row + 1,
                        'image_id': index + 1,
                        'category_id': 1,
                        'bbox': [x1, y1, x2 - x1, y2 - y1],
                        'area': (x2 - x1) * (y2 - y1),
                        'iscrowd': int(ignored[row]),
                    }
                )
        truth.createIndex()
        return truth


def read_detections(part: Part, prefix: Path, truth: COCO, kind: str) -> list[dict]:
    """list[dict]: what a run detected in a part's images, as COCO results."""
    if part.task == 'person':
        return json.loads(Path(f'{prefix}.{kind}.json').read_text(encoding='utf-8'))
    found = read_predictions(prefix)[0]
    results = []
    for image in truth.dataset['images']:
        for *box, score in found[image['file_name'].rsplit('.', 1)[0]].tolist():
            results.append(dict(image_id=image['id'], category_id=1, bbox=box, score=score))
    return results


def official_truth(truth: COCO, gt_dir: Path) -> WiderFaceGroundTruth | None:
    """WiderFaceGroundTruth or None: the official one, if a part's images are all of it."""
    if not gt_dir.is_dir():
        return None
    official = read_ground_truth(gt_dir)
    names = {image['file_name'].rsplit('.', 1)[0] for image in truth.dataset['images']}
    return official if names <= set(official.index) else None


def score_runs(part: Part, runs: dict[str, dict[int, Path]], gt_dir: Path, resamples: int) -> dict:
    """Score all runs on a part.

    Args:
        part (Part): The images.
        runs (dict[str, dict[int, Path]]): For each layer and seed, what the names of its stored
            detections begin with.
        gt_dir (Path): WIDER FACE's evaluation files; need not exist without faces.
        resamples (int): Of the bootstrap.

    Returns:
        dict: ``images`` and ``objects``: how many; ``ap``: layer, metric, values a seed;
        ``difference`` to 'none': layer, metric, mean and ends of its 95 % interval.
    """
    truth = read_truth(part)
    official = official_truth(truth, gt_dir) if part.task == 'face' else None
    matches: dict[str, dict[str, dict[int, ImageMatches]]] = {}
    values: dict[str, dict[str, list[float]]] = {}
    for layer, prefixes in runs.items():
        matches[layer] = {
            kind: {
                seed: ImageMatches(truth, read_detections(part, prefix, truth, kind), kind)
                for seed, prefix in prefixes.items()
            }
            for kind in KINDS[part.task]
        }
        values[layer] = _values(part, matches[layer])
        if official:
            found = [read_predictions(prefix)[0] for prefix in prefixes.values()]
            aps = [score_wider_face(boxes, official, subset=True).ap for boxes in found]
            values[layer] |= {f'WIDER {name}': [ap[name] for ap in aps] for name in SETTINGS}
    return {
        'images': len(truth.getImgIds()),
        'objects': len(truth.getAnnIds(iscrowd=False)),
        'ap': values,
        'difference': _differences(part, matches, resamples),
    }


def _values(part: Part, found: dict[str, dict[int, ImageMatches]]) -> dict[str, list[float]]:
    values = {}
    for metric, (kind, chosen, area) in METRICS[part.task].items():
        aps = [float(run.ap(None, area, chosen).mean()) for run in found[kind].values()]
        if not np.isnan(aps).any():
            values[metric] = aps
    return values


def _differences(part: Part, matches: dict, resamples: int) -> dict[str, dict[str, tuple]]:
    differences = {}
    for layer, found in matches.items():
        seeds = sorted(set(matches.get('none', {}).get('bbox', {})) & set(found['bbox']))
        if layer == 'none' or len(seeds) < 2:
            continue  # One seed has no spread.
        differences[layer] = {
            metric: difference_interval(
                [found[kind][seed] for seed in seeds],
                [matches['none'][kind][seed] for seed in seeds],
                chosen,
                resamples,
                area,
            )
            for metric, (kind, chosen, area) in METRICS[part.task].items()
        }
    return differences


def print_scores(name: str, scores: dict) -> None:
    """Print the tables of a part, and what the intervals allow to say.

    Args:
        name (str): Of the part.
        scores (dict): As :func:`score_runs` returns them.
    """
    print(f'\n{name}: {scores["images"]} images, {scores["objects"]} objects\n')
    done = {layer: found for layer, found in scores['ap'].items() if any(found.values())}
    if not done:
        print('no finished run')
        return
    metrics = list(next(iter(done.values())))
    rows = [
        [
            layer,
            *(mean_and_spread(values) for values in found.values()),
            str(len(found[metrics[0]])),
        ]
        for layer, found in done.items()
    ]
    print(markdown([name, *metrics, 'seeds'], rows))
    differences = scores['difference']
    if not differences:
        return
    rows = [
        [layer, *(_interval(*values) for values in found.values())]
        for layer, found in differences.items()
    ]
    print('\n' + markdown([f'{name}, minus none', *next(iter(differences.values()))], rows) + '\n')
    for layer, found in differences.items():
        said: dict[str, list[str]] = {}
        for metric, (_, low, high) in found.items():
            said.setdefault(_says(low, high), []).append(metric)
        print(f'{layer}: ' + '; '.join(f'{what}: {", ".join(of)}' for what, of in said.items()))


def _interval(mean: float, low: float, high: float) -> str:
    unknown = math.isnan(low)
    return f'{mean:+.3f}' if unknown else f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]'


def _says(low: float, high: float) -> str:
    """str: what a 95 % interval allows to say."""
    if math.isnan(low):
        return 'too few images'
    if low > 0:
        return 'better'
    return 'worse' if high < 0 else 'no difference shown'
