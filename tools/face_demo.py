"""Find faces in images, folders, videos or a camera; draw them, and save boxes and crops.

    python tools/face_demo.py SOURCE ... MODEL.onnx --out FOLDER [options]
    python tools/face_demo.py SOURCE ... CONFIG CHECKPOINT --out FOLDER [options]

SOURCE is an image, a folder of images and videos, a video, or the number of a camera. Drawn images
and videos go to FOLDER; with --save-json also faces.json, with --save-crops also aligned crops of
112 x 112 pixels. MODEL.onnx comes from tools/export_onnx.py, and needs onnxruntime, NumPy and
OpenCV only. A camera is recorded until Ctrl-C or --max-frames.

Examples:
    python tools/face_demo.py photos/ party.jpg face.onnx --out faces/ --save-json --save-crops
    python tools/face_demo.py 0 CONFIG CHECKPOINT --out faces/ --max-frames 300
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``sources`` and ``model`` (one or two paths) are told apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('paths', nargs='+', metavar='SOURCE ... MODEL.onnx | CONFIG CHECKPOINT')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--score-thr', type=float, default=0.5, help='min score (default: 0.5)')
    parser.add_argument(
        '--max-size', type=int, default=1024, help='max longer side, larger images are downscaled: '
        'faces much larger than in training are not found; 0: no limit (default: 1024)',
    )  # fmt: skip
    parser.add_argument('--save-json', action='store_true', help='write faces.json')
    parser.add_argument('--save-crops', action='store_true', help='write aligned crops')
    parser.add_argument('--max-frames', type=int, help='frames of a video or camera (default: all)')
    parser.add_argument('--device', default='cpu', help="of CONFIG: 'cpu' (default), 'cuda:0', ...")
    opts = parser.parse_args(args)
    ends = [Path(path).suffix for path in opts.paths]
    if '.onnx' in ends:
        first, last = ends.index('.onnx'), ends.index('.onnx') + 1
    elif '.py' in ends[:-1]:
        first, last = ends.index('.py'), ends.index('.py') + 2
    else:
        parser.error('expected MODEL.onnx, or CONFIG.py and CHECKPOINT, among the arguments')
    opts.model, opts.sources = opts.paths[first:last], opts.paths[:first] + opts.paths[last:]
    if not opts.sources:
        parser.error('expected a SOURCE')
    return opts


if __name__ == '__main__' and parse_args().model[0].endswith('.onnx'):
    # Not needed for an ONNX file, and slow to import.
    sys.modules.update(dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmdet')))

import cv2
import numpy as np
from tqdm import tqdm

from polynl_mmdet.deploy.face_detector import FaceDetector, Faces, align_faces, read_image
from polynl_mmdet.errors import InputError, one_line_errors

IMAGES = {'.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.gif'}
VIDEOS = {'.mp4', '.m4v', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg'}
DRAWN_AS_IS = {'.jpg', '.jpeg', '.png'}
# BGR; left is red, right is blue.
COLOURS = ((40, 40, 255), (255, 110, 40), (0, 225, 255), (190, 130, 255), (255, 220, 60))
BOX_COLOUR = (60, 255, 60)


def find_files(sources: list[str]) -> dict[str, Path]:
    """Find images and videos; name each by its path below the source.

    Where two have one name it is the path below the folder that all files share.
    """
    files: dict[Path, str] = {}
    for source in map(Path, sources):
        if not source.exists():
            raise InputError(f'{source}: no such file or folder')
        if source.is_file():
            files[source.resolve()] = source.name
            continue
        found = sorted(p for p in source.rglob('*') if p.suffix.lower() in IMAGES | VIDEOS)
        if not found:
            raise InputError(f'{source}: no image or video below it')
        files.update({file.resolve(): file.relative_to(source).as_posix() for file in found})
    if len(set(files.values())) < len(files):
        root = os.path.commonpath([file.parent for file in files])
        files = {file: file.relative_to(root).as_posix() for file in files}
    return {name: file for file, name in files.items()}


def as_json(faces: Faces, names: list[str]) -> list[dict]:
    """Return the faces of an image: box x1 y1 x2 y2, score and landmarks x y, in pixels."""
    count = faces.landmarks.shape[1]
    names = names if len(names) == count else [f'landmark_{i}' for i in range(count)]
    return [
        {
            'bbox': np.round(box.astype(float), 2).tolist(),
            'score': round(float(score), 4),
            'landmarks': dict(zip(names, np.round(points.astype(float), 2).tolist())),
        }
        for box, score, points in zip(*faces)
    ]


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image; cv2.imwrite takes ASCII paths only on some systems."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, image)[1].tofile(path)


def write_crops(folder: Path, name: str, image: np.ndarray, faces: Faces) -> None:
    """Write the aligned crops of an image."""
    if faces.landmarks.shape[1] != 5:
        raise InputError(f'--save-crops: got {faces.landmarks.shape[1]} landmarks, expected 5')
    for index, crop in enumerate(align_faces(image, faces.landmarks)):
        write_image(folder / 'crops' / f'{name}_{index}.png', crop)


def draw(image: np.ndarray, faces: Faces) -> np.ndarray:
    """Draw faces into an image; lines and letters grow with the image and the face."""
    line = max(1, round(max(image.shape[:2]) / 800))
    for box, score, points in zip(*faces):
        x1, y1, x2, y2 = box.round().astype(int).tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), BOX_COLOUR, line, cv2.LINE_AA)
        radius = max(1, round((x2 - x1) / 25))
        for index, point in enumerate(points.round().astype(int).tolist()):
            cv2.circle(image, point, radius, COLOURS[index % 5], -1, cv2.LINE_AA)
        size = float(np.clip((x2 - x1) / 120, 0.3, 0.8))
        place = (x1, y1 - 3 if y1 > 12 else y2 + round(30 * size))
        for colour, width in (((0, 0, 0), 3), (BOX_COLOUR, 1)):
            style = (cv2.FONT_HERSHEY_SIMPLEX, size, colour, width, cv2.LINE_AA)
            cv2.putText(image, f'{score:.2f}', place, *style)
    return image


def run_images(detector: FaceDetector, files: dict[str, Path], opts: argparse.Namespace) -> dict:
    """Detect the faces of images, and draw them; return the faces of each that can be read."""
    found = {}
    for name, file in tqdm(files.items(), 'faces', unit='image'):
        try:
            image = read_image(file)
        except ValueError as error:
            tqdm.write(f'skipped: {error}')
            continue
        found[name] = detector(image)
        if opts.save_crops:
            write_crops(opts.out, name, image, found[name])
        suffix = '' if file.suffix.lower() in DRAWN_AS_IS else '.jpg'
        write_image(opts.out / (name + suffix), draw(image, found[name]))
    return found


def run_video(
    detector: FaceDetector, name: str, source: str | int, opts: argparse.Namespace
) -> dict:
    """Detect the faces of a video or camera, and draw them; return the faces of each frame."""
    video = cv2.VideoCapture(source)
    found, writer = {}, None
    path = (opts.out / name).with_suffix('.mp4')
    path.parent.mkdir(parents=True, exist_ok=True)
    total = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    frames = range(opts.max_frames or total or sys.maxsize)
    try:
        for number in tqdm(frames, name, opts.max_frames or total or None, unit='frame'):
            is_read, image = video.read()
            if not is_read:
                break
            if writer is None:
                codec, fps = cv2.VideoWriter_fourcc(*'mp4v'), video.get(cv2.CAP_PROP_FPS) or 25
                writer = cv2.VideoWriter(str(path), codec, fps, image.shape[1::-1])
            key = f'{name}/{number:06d}'
            found[key] = detector(image)
            if opts.save_crops:
                write_crops(opts.out, key, image, found[key])
            writer.write(draw(image, found[key]))
    except KeyboardInterrupt:
        print('stopped')
    video.release()
    if writer is not None:
        writer.release()
    return found


def main(args: list[str] | None = None) -> None:
    """Run the tool."""
    opts = parse_args(args)
    cameras = [source for source in opts.sources if source.isdecimal()]
    files = find_files([source for source in opts.sources if source not in cameras])
    for name, file in files.items():
        if (opts.out / name).resolve() == file:
            raise InputError(f'--out: {opts.out} would replace {file}, expected another folder')
    for path in opts.model:
        if not Path(path).is_file():
            raise InputError(f'{path}: no such file')
    detector = FaceDetector(
        *opts.model, score_thr=opts.score_thr, max_size=opts.max_size or None, device=opts.device
    )
    images = {n: file for n, file in files.items() if file.suffix.lower() not in VIDEOS}
    videos = {name: str(file) for name, file in files.items() if name not in images}
    videos.update({f'camera{number}': int(number) for number in cameras})
    found = run_images(detector, images, opts) if images else {}
    for name, source in videos.items():
        found.update(run_video(detector, name, source, opts))
    if not found:
        raise InputError(f'none of {", ".join(opts.sources)} can be read')
    if opts.save_json:
        report = {name: as_json(faces, detector.landmarks) for name, faces in found.items()}
        (opts.out / 'faces.json').write_text(json.dumps(report, indent=1), encoding='utf-8')
    count = sum(len(faces.scores) for faces in found.values())
    print(f'{count} faces in {len(found)} images, written to {opts.out}')


if __name__ == '__main__':
    with one_line_errors():
        main()
