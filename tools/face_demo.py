"""Find faces in an image or in every image of a folder; draw them and write them as JSON.

Examples:
    python tools/face_demo.py photos/ CONFIG CHECKPOINT --out faces/
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from mmdet.apis import inference_detector, init_detector
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn
from tqdm import tqdm

from polynl_mmdet.engine import force_weights_only
from polynl_mmdet.errors import InputError, one_line_errors
from polynl_mmdet.visualization import FaceVisualizer

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm'}
DRAWN_AS_IS = {'.jpg', '.jpeg', '.png'}
LANDMARKS = ('left_eye', 'right_eye', 'nose', 'left_mouth', 'right_mouth')


def find_images(source: Path) -> tuple[Path, list[Path]]:
    """Find the images below a folder; return the folder and its images.

    Raises:
        InputError: The place does not exist, or holds no image.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise InputError(str(source), 'no such file or folder')
    images = sorted(path for path in source.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(
            str(source), 'no images below it', f'accepted: {", ".join(sorted(SUFFIXES))}'
        )
    return source, images


def build_detector(config: str, checkpoint: str, device: str) -> nn.Module:
    """Build the config's detector with a checkpoint's weights.

    Raises:
        InputError: Either file does not exist, or the detector has no landmarks.
    """
    for path in (config, checkpoint):
        if not Path(path).is_file():
            raise InputError(path, 'no such file')
    cfg = Config.fromfile(config)
    if 'RetinaFace' not in cfg.get('model', {}).get('type', ''):
        raise InputError(
            config, f'a {cfg.get("model", {}).get("type")}', 'accepted: a RetinaFace config'
        )
    register_all_modules()
    return init_detector(cfg, checkpoint, palette='none', device=device)


def read_image(path: Path) -> np.ndarray | None:
    """Read a BGR image (H, W, 3); None if it cannot be read.

    OpenCV's imread takes only ASCII paths on some systems; imdecode takes the file's bytes.
    """
    try:
        return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None


def as_json(sample: DetDataSample, score_thr: float) -> list[dict]:
    """Return the faces of an image: box x1 y1 x2 y2, score and landmarks x y, in pixels."""
    found = sample.pred_instances
    found = found[found.scores >= score_thr].cpu()
    return [
        {
            'bbox': [round(value, 2) for value in box],
            'score': round(score, 4),
            'landmarks': {
                name: [round(value, 2) for value in point] for name, point in zip(LANDMARKS, points)
            },
        }
        for box, score, points in zip(
            found.bboxes.tolist(), found.scores.tolist(), found.keypoints.tolist()
        )
    ]


def main(args: list[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, metavar='IMAGE_OR_DIR')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', type=Path, required=True, help='folder for images and JSON')
    parser.add_argument('--score-thr', type=float, default=0.5, help='least score (default 0.5)')
    parser.add_argument('--device', default='cpu', help="'cpu' (default), 'cuda:0', ...")
    opts = parser.parse_args(args)
    force_weights_only()

    root, images = find_images(opts.source)
    if opts.out.resolve() == root.resolve():
        raise InputError('--out', f'{opts.out}, where the images are', 'accepted: another folder')
    detector = build_detector(opts.config, opts.checkpoint, opts.device)
    opts.out.mkdir(parents=True, exist_ok=True)
    visualizer = FaceVisualizer()
    visualizer.dataset_meta = detector.dataset_meta
    results, unreadable = {}, []
    for path in tqdm(images, desc='faces', unit='image'):
        name = path.relative_to(root).as_posix()
        image = read_image(path)
        if image is None:
            tqdm.write(f'cannot be read, left out: {path}')
            unreadable.append(name)
            continue
        sample = inference_detector(detector, image)
        results[name] = as_json(sample, opts.score_thr)
        visualizer.add_datasample(
            name,
            image[..., ::-1],
            sample,
            draw_gt=False,
            pred_score_thr=opts.score_thr,
            out_file=str(
                opts.out / (name if path.suffix.lower() in DRAWN_AS_IS else f'{name}.jpg')
            ),
        )
    if not results:
        raise InputError(str(opts.source), f'none of {len(images)} images can be read')
    report = opts.out / 'faces.json'
    report.write_text(
        json.dumps({'images': results, 'unreadable': unreadable}, indent=1), encoding='utf-8'
    )
    count = sum(len(faces) for faces in results.values())
    print(f'{count} faces in {len(results)} images, {len(unreadable)} unreadable')
    print(f'images and {report.name} are in {opts.out}')


if __name__ == '__main__':
    with one_line_errors():
        main()
