"""Detect faces in one call, with an ONNX file or a config and a checkpoint.

With an ONNX file it needs NumPy, OpenCV and onnxruntime only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

# Left and right eye, nose, left and right mouth corner in ArcFace's 112 x 112 crops (Deng et al.,
# CVPR 2019), which most face recognition models expect.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]],
    np.float32,
)  # fmt: skip
LANDMARKS = ('left_eye', 'right_eye', 'nose', 'left_mouth', 'right_mouth')
MAX_BATCH = 8


class Faces(NamedTuple):
    """Detections of one image, by decreasing score, in pixels of the image: float32.

    The landmarks of faces are left eye, right eye, nose, left and right mouth corner as the viewer
    sees them.
    """

    boxes: np.ndarray  # (n, 4), x1 y1 x2 y2
    scores: np.ndarray  # (n,)
    landmarks: np.ndarray  # (n, K, 2), x y


class FaceDetector:
    """A trained RetinaFace, from images to arrays.

    Args:
        model (str or Path): ONNX file written by ``tools/export_onnx.py``, or a config.
        checkpoint (str or Path, optional): Checkpoint of the config. Defaults to None.
        score_thr (float): Min score. Defaults to 0.5.
        max_size (int, optional): Images with a longer side are downscaled to it first. Faces much
            larger than in training are not found otherwise. None: no limit. Defaults to 1024.
        device (str): Device of a config's detector. Defaults to 'cpu'.

    Attributes:
        landmarks (list[str]): Names of the K landmarks.

    Raises:
        ValueError: A file is missing, cannot be loaded or is no face detector.

    Examples:
        >>> detector = FaceDetector('face.onnx')
        >>> boxes, scores, landmarks = detector('photo.jpg')
        >>> crops = align_faces(cv2.imread('photo.jpg'), landmarks)
    """

    def __init__(
        self,
        model: str | Path,
        checkpoint: str | Path | None = None,
        score_thr: float = 0.5,
        max_size: int | None = 1024,
        device: str = 'cpu',
    ) -> None:
        self._run, self.settings, self._channels = (
            _load_onnx(str(model))
            if checkpoint is None
            else _load_checkpoint(str(model), str(checkpoint), device)
        )
        self.landmarks = self.settings.get('landmarks') or list(LANDMARKS)
        self.score_thr = score_thr
        self.max_size = max_size

    def __call__(
        self, images: str | Path | np.ndarray | Sequence[str | Path | np.ndarray]
    ) -> Faces | list[Faces]:
        """Detect the faces of one image, or of each image of a list.

        Images that are of one size after resizing run in batches.

        Args:
            images: File, array (H, W, 3) or (H, W) uint8, BGR as OpenCV reads it, or a list of
                them.

        Raises:
            ValueError: A file cannot be read, or an array is no image.
        """
        if isinstance(images, (str, Path, np.ndarray)):
            return self([images])[0]
        images = [read_image(image) for image in images]
        small = [resize_image(image, self.settings['resize'], self.max_size) for image in images]
        if self._channels == 1:
            small = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None] for image in small]
        groups = {}
        for index, image in enumerate(small):
            groups.setdefault(image.shape, []).append(index)
        results = [None] * len(images)
        for group in groups.values():
            for start in range(0, len(group), MAX_BATCH):
                batch = group[start : start + MAX_BATCH]
                pixels = np.stack([small[i] for i in batch]).transpose(0, 3, 1, 2)
                outputs = self._run(np.ascontiguousarray(pixels, np.float32))
                for index, boxes, scores, landmarks in zip(batch, *outputs):
                    factor = np.array(small[index].shape[1::-1], np.float32)
                    factor /= images[index].shape[1::-1]
                    results[index] = self._select(boxes, scores, landmarks, factor)
        return results

    def _select(
        self, boxes: np.ndarray, scores: np.ndarray, landmarks: np.ndarray, factor: np.ndarray
    ) -> Faces:
        """Apply the score threshold and the NMS, in pixels of the original image."""
        settings = self.settings
        kept = np.flatnonzero(scores > self.score_thr)
        if settings['nms_pre'] > 0:
            kept = kept[np.argsort(-scores[kept], kind='stable')[: settings['nms_pre']]]
        boxes, scores, landmarks = boxes[kept], scores[kept], landmarks[kept]
        boxes, landmarks = boxes / np.tile(factor, 2), landmarks / factor
        kept = nms(boxes, scores, settings['nms_iou'], settings['nms_offset'])
        if settings['max_per_img'] > 0:
            kept = kept[: settings['max_per_img']]
        return Faces(boxes[kept], scores[kept], landmarks[kept])


def align_faces(image: np.ndarray, landmarks: np.ndarray, size: int = 112) -> np.ndarray:
    """Crop faces, (n, size, size, 3), so that their landmarks lie where ArcFace expects them.

    The transform is the similarity (rotation, scale, shift) with the least squared distance of the
    landmarks (n, 5, 2).
    """
    template = ARCFACE_TEMPLATE @ (1, 1j) * (size / 112)
    crops = np.zeros((len(landmarks), size, size, 3), np.uint8)
    for crop, points in zip(crops, landmarks):
        # In complex numbers a similarity is z -> a z + b.
        points = np.asarray(points, np.float64) @ (1, 1j)
        source, target = points - points.mean(), template - template.mean()
        a = (source.conj() * target).sum() / (abs(source) ** 2).sum()
        b = template.mean() - a * points.mean()
        matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
        crop[:] = cv2.warpAffine(image, matrix, (size, size))
    return crops


def read_image(image: str | Path | np.ndarray) -> np.ndarray:
    """Read a file, or check an array, as (H, W, 3) uint8, BGR."""
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f'image: got {image.dtype} array {image.shape}, expected uint8 (H, W, 3) or (H, W)'
            )
        return image
    try:  # imread takes ASCII paths only on some systems.
        pixels = cv2.imdecode(np.fromfile(image, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError(f'{image}: cannot be read as an image')
    return pixels


def resize_image(image: np.ndarray, resize: dict, max_size: int | None) -> np.ndarray:
    """Resize an image as the config's test pipeline does, but to at most ``max_size``.

    ``resize`` has 'scale' (width, height) or 'factor', and 'keep_ratio': then neither the long nor
    the short side may exceed the longer and the shorter of the two.
    """
    height, width = image.shape[:2]
    size = resize.get('scale') or [int(side * resize['factor'] + 0.5) for side in (width, height)]
    if resize['keep_ratio']:
        factor = min(max(size) / max(height, width), min(size) / min(height, width))
        size = [int(side * factor + 0.5) for side in (width, height)]
    if max_size is not None and max(size) > max_size:
        size = [max(int(side * max_size / max(size) + 0.5), 1) for side in size]
    if list(size) == [width, height]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def nms(boxes: np.ndarray, scores: np.ndarray, iou_thr: float, offset: float) -> np.ndarray:
    """Drop boxes (n, 4) of a higher IoU to a better one; return the others, best score first.

    The offset is added to widths and heights: 1 counts pixels.
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
        order = rest[overlap / (areas[best] + areas[rest] - overlap) <= iou_thr]
    return np.array(kept, dtype=np.int64)


def _load_onnx(path: str) -> tuple[Callable, dict, int]:
    """Return what runs an ONNX file on (B, channels, H, W), settings for testing, and channels."""
    import onnxruntime

    if not Path(path).is_file():
        raise ValueError(f'{path}: no such file')
    try:
        providers = onnxruntime.get_available_providers()
        session = onnxruntime.InferenceSession(path, providers=providers)
    except Exception as error:  # onnxruntime's have no base class of their own.
        reason = str(error).splitlines()[0]
        raise ValueError(f'{path}: onnxruntime cannot load it ({reason})') from error
    settings = json.loads(session.get_modelmeta().custom_metadata_map.get('polynl_mmdet', '{}'))
    if settings.get('kind') != 'faces':
        raise ValueError(f'{path}: no face detector, expected a file of tools/export_onnx.py')
    names = ['boxes', 'scores', 'landmarks']
    channels = session.get_inputs()[0].shape[1]
    return lambda pixels: session.run(names, {'image': pixels}), settings, channels


def _load_checkpoint(config: str, checkpoint: str, device: str) -> tuple[Callable, dict, int]:
    """The same for a config and a checkpoint."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from ..engine import check_loaded, load_checkpoint
    from .graphs import FaceDetectorGraph, face_settings, input_channels

    cfg = Config.fromfile(config)
    settings = face_settings(cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    state = load_checkpoint(checkpoint)
    state = state.get('state_dict', state)
    check_loaded(model, state, checkpoint)
    model.load_state_dict(state, strict=False)
    graph = FaceDetectorGraph(model).to(device).eval()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.cpu().numpy() for output in graph(torch.from_numpy(pixels).to(device))]

    return run, settings, input_channels(model)
