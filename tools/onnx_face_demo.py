"""Find faces with an exported RetinaFace; draw boxes and landmarks, and write JSON.

    python tools/onnx_face_demo.py MODEL.onnx IMAGE... --out FOLDER [--score-thr 0.5]

Needs onnxruntime, NumPy and OpenCV, and nothing else: neither PyTorch nor any OpenMMLab package.
MODEL.onnx comes from tools/export_onnx.py. Images are resized as its config tests them, and
results are in pixels of the originals.

Examples:
    python tools/onnx_face_demo.py face.onnx party.jpg family.png --out faces/
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

try:
    import cv2
    import numpy as np
    import onnxruntime
except ModuleNotFoundError as error:
    raise SystemExit(
        f'error: {error.name} is missing; pip install onnxruntime numpy opencv-python'
    ) from None

LANDMARKS = ('left_eye', 'right_eye', 'nose', 'left_mouth', 'right_mouth')
# BGR; left is red, right is blue.
COLOURS = ((40, 40, 255), (255, 110, 40), (0, 225, 255), (190, 130, 255), (255, 220, 60))
BOX_COLOUR = (60, 255, 60)


def fail(message: str) -> None:
    """End in one line, with exit status 2."""
    sys.stdout.flush()
    print(f'error: {message}', file=sys.stderr)
    raise SystemExit(2)


def load(path: str, threads: int) -> tuple[onnxruntime.InferenceSession, dict]:
    """Load the model, and its config's settings for testing."""
    if not Path(path).is_file():
        fail(f'{path}: no such file')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:
        # onnxruntime's exceptions have no common base of their own.
        fail(f'{path}: onnxruntime cannot load it ({str(error).splitlines()[0]})')
    settings = json.loads(session.get_modelmeta().custom_metadata_map.get('polynl_mmdet', '{}'))
    if settings.get('kind') != 'faces':
        fail(f'{path}: no face detector; accepted: what tools/export_onnx.py makes of a RetinaFace')
    return session, settings


def resize_image(image: np.ndarray, resize: dict) -> np.ndarray:
    """Resize an image as the config's test pipeline does.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        resize (dict): 'scale' (width, height) or 'factor', and 'keep_ratio': then neither the long
            nor the short side may exceed the longer and the shorter of the two.

    Returns:
        np.ndarray: (H', W', 3) uint8.
    """
    height, width = image.shape[:2]
    size = resize.get('scale') or [int(side * resize['factor'] + 0.5) for side in (width, height)]
    if resize['keep_ratio']:
        factor = min(max(size) / max(height, width), min(size) / min(height, width))
        size = [int(side * factor + 0.5) for side in (width, height)]
    if size == [width, height]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def nms(boxes: np.ndarray, scores: np.ndarray, iou: float, offset: float) -> np.ndarray:
    """Drop boxes that overlap a better one (greedy non-maximum suppression).

    Args:
        boxes (np.ndarray): (n, 4) x1 y1 x2 y2.
        scores (np.ndarray): (n,).
        iou (float): Boxes that overlap a better one by more than this are dropped.
        offset (float): Added to widths and heights: 1 counts pixels.

    Returns:
        np.ndarray: Indices of those kept, by falling score.
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(axis=1)
    order = np.argsort(-scores, kind='stable')
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        size = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - corner + offset
        overlap = size.clip(min=0).prod(axis=1)
        order = rest[overlap / (areas[best] + areas[rest] - overlap) <= iou]
    return np.array(kept, dtype=np.int64)


def detect(
    session: onnxruntime.InferenceSession, settings: dict, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detect the faces of an image.

    Args:
        session, settings: From :func:`load`.
        image (np.ndarray): (H, W, 3) uint8, BGR.

    Returns:
        tuple[np.ndarray]: Boxes (n, 4), scores (n,) and landmarks (n, 5, 2), in its pixels, by
        falling score.
    """
    small = resize_image(image, settings['resize'])
    pixels = small.transpose(2, 0, 1)[None].astype(np.float32)
    outputs = session.run(['boxes', 'scores', 'landmarks'], {'image': pixels})
    boxes, scores, landmarks = (output[0] for output in outputs)
    chosen = np.flatnonzero(scores > settings['score_thr'])
    if 0 < settings['nms_pre'] < len(chosen):
        chosen = chosen[np.argsort(-scores[chosen], kind='stable')[: settings['nms_pre']]]
    boxes, scores, landmarks = boxes[chosen], scores[chosen], landmarks[chosen]
    factor = np.array([small.shape[1], small.shape[0]], np.float32)
    factor /= (image.shape[1], image.shape[0])
    boxes, landmarks = boxes / np.tile(factor, 2), landmarks / factor
    kept = nms(boxes, scores, settings['nms_iou'], settings['nms_offset'])
    if settings['max_per_img'] > 0:
        kept = kept[: settings['max_per_img']]
    return boxes[kept], scores[kept], landmarks[kept]


def draw(image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, points: np.ndarray) -> None:
    """Draw faces into an image; lines and letters grow with the image and the face."""
    line = max(1, round(max(image.shape[:2]) / 800))
    for box, score, marks in zip(boxes, scores, points):
        x1, y1, x2, y2 = box.round().astype(int).tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), BOX_COLOUR, line, cv2.LINE_AA)
        for mark, colour in zip(marks, COLOURS):
            radius = max(1, round((x2 - x1) / 25))
            cv2.circle(image, mark.round().astype(int).tolist(), radius, colour, -1, cv2.LINE_AA)
        size = float(np.clip((x2 - x1) / 120, 0.3, 0.8))
        place = (x1, y1 - 3 if y1 > 12 else y2 + round(30 * size))
        for colour, width in (((0, 0, 0), 3), (BOX_COLOUR, 1)):
            cv2.putText(
                image, f'{score:.2f}', place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, width,
                cv2.LINE_AA,
            )  # fmt: skip


def read_image(path: Path) -> np.ndarray | None:
    """Read a BGR image (H, W, 3); None if it cannot be read.

    OpenCV's imread takes only ASCII paths on some systems; imdecode takes the file's bytes.
    """
    try:
        return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None


def as_json(boxes: np.ndarray, scores: np.ndarray, points: np.ndarray) -> list[dict]:
    """Return the faces as tools/face_demo.py writes them."""
    return [
        {
            'bbox': [round(value, 2) for value in box],
            'score': round(score, 4),
            'landmarks': {
                name: [round(value, 2) for value in mark] for name, mark in zip(LANDMARKS, marks)
            },
        }
        for box, score, marks in zip(boxes.tolist(), scores.tolist(), points.tolist())
    ]


def main(args: list[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', metavar='MODEL.onnx')
    parser.add_argument('images', nargs='+', type=Path, metavar='IMAGE')
    parser.add_argument('--out', type=Path, required=True, help='folder for images and JSON')
    parser.add_argument('--score-thr', type=float, default=0.5, help='least score (default 0.5)')
    parser.add_argument('--threads', type=int, default=0, help='default: as many as there are')
    opts = parser.parse_args(args)

    names = [path.name for path in opts.images]
    double = {name for name in names if names.count(name) > 1}
    if double:
        fail(f'several images are called {min(double)}; accepted: different names')
    if any(path.parent.resolve() == opts.out.resolve() for path in opts.images):
        fail(f'--out: {opts.out}, where an image is; accepted: another folder')
    session, settings = load(opts.model, opts.threads)
    opts.out.mkdir(parents=True, exist_ok=True)
    results, unreadable = {}, []
    for number, path in enumerate(opts.images, 1):
        image = read_image(path)
        if image is None:
            print(f'cannot be read, left out: {path}', file=sys.stderr)
            unreadable.append(path.name)
            continue
        begin = time.perf_counter()
        boxes, scores, points = detect(session, settings, image)
        seconds = time.perf_counter() - begin
        shown = scores >= opts.score_thr
        boxes, scores, points = boxes[shown], scores[shown], points[shown]
        results[path.name] = as_json(boxes, scores, points)
        draw(image, boxes, scores, points)
        as_is = path.suffix.lower() in {'.jpg', '.jpeg', '.png'}
        drawn = opts.out / (path.name if as_is else f'{path.name}.jpg')
        cv2.imencode(drawn.suffix, image)[1].tofile(drawn)
        print(
            f'[{number}/{len(opts.images)}] {path.name}: {len(boxes)} faces, '
            f'{seconds * 1000:.0f} ms'
        )
    if not results:
        fail(f'none of {len(opts.images)} images can be read')
    report = opts.out / 'faces.json'
    report.write_text(
        json.dumps({'images': results, 'unreadable': unreadable}, indent=1), encoding='utf-8'
    )
    count = sum(len(faces) for faces in results.values())
    print(f'{count} faces in {len(results)} images; images and {report.name} are in {opts.out}')


if __name__ == '__main__':
    main()
