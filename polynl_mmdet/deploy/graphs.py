"""Modules that are exported: from pixels to a detector's pyramid, or to decoded faces.

Both take pixels as OpenCV reads them; the channel order, normalization and padding of the config's
``data_preprocessor`` are part of the graph. All sizes, also of the anchors, are computed from the
input's, so a traced graph takes any height, width and batch size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from polynl_mmdet.models import RetinaFaceHead


class PixelInput(nn.Module):
    """mmengine's ImgDataPreprocessor or mmdet's DetDataPreprocessor, in operations of ONNX."""

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        if not isinstance(preprocessor, ImgDataPreprocessor):
            raise ValueError(
                f'model.data_preprocessor: got {type(preprocessor).__name__}, '
                'expected DetDataPreprocessor or ImgDataPreprocessor'
            )
        mean, std = torch.zeros(1), torch.ones(1)
        if preprocessor._enable_normalize:
            mean, std = preprocessor.mean, preprocessor.std
        self.register_buffer('mean', mean.reshape(1, -1, 1, 1).clone())
        self.register_buffer('std', std.reshape(1, -1, 1, 1).clone())
        self.reverse = preprocessor._channel_conversion
        self.divisor = preprocessor.pad_size_divisor
        self.pad_value = float(preprocessor.pad_value)

    def forward(self, image: Tensor) -> Tensor:
        """Normalize (B, channels, H, W), BGR or gray, 0 to 255; pad at the right and the bottom."""
        x = image[:, [2, 1, 0]] if self.reverse else image
        x = (x - self.mean) / self.std
        if self.divisor > 1:
            bottom, right = (
                (self.divisor - side % self.divisor) % self.divisor for side in x.shape[2:]
            )
            x = F.pad(x, (0, right, 0, bottom), value=self.pad_value)
        return x


class PyramidGraph(nn.Module):
    """Backbone and neck of any detector of mmdet."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.pixels = PixelInput(detector.data_preprocessor)
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Turn pixels (B, 3, H, W), float32, BGR, 0 to 255, into levels (B, C, H_i, W_i)."""
        return tuple(self.detector.extract_feat(self.pixels(image)))


class FaceDetectorGraph(nn.Module):
    """A RetinaFace up to its non-maximum suppression.

    Boxes, scores and landmarks of all N anchors are decoded; score threshold and NMS follow outside
    (:class:`FaceDetector`): ONNX's NonMaxSuppression counts areas without WIDER FACE's extra pixel.

    Raises:
        ValueError: The detector has no RetinaFaceHead of one class.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        head = getattr(detector, 'bbox_head', None)
        if not isinstance(head, RetinaFaceHead) or head.num_classes != 1:
            found = f'{type(head).__name__} of {getattr(head, "num_classes", "no")} classes'
            raise ValueError(f'model.bbox_head: got {found}, expected a RetinaFaceHead of one')
        self.pixels = PixelInput(detector.data_preprocessor)
        self.detector = detector
        self.head = head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn pixels (B, 3, H, W), float32, BGR, 0 to 255, into faces.

        Returns:
            tuple[Tensor]: Boxes x1 y1 x2 y2 (B, N, 4) in pixels of ``image``; scores (B, N), 0
            for anchors in the padding; landmarks (B, N, K, 2) in pixels.
        """
        head, batch = self.head, image.shape[0]
        outputs = head(self.detector.extract_feat(self.pixels(image)))
        sizes = [scores.shape[-2:] for scores in outputs[0]]
        scores, deltas, codes = head.per_anchor(*outputs)
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
        scores = scores.squeeze(-1)
        if self.pixels.divisor > 1:
            scores = scores * self._inside(sizes, image)

        priors = torch.cat(head.prior_generator.grid_priors(sizes, device=image.device))
        priors = priors[None].expand(batch, -1, -1).reshape(-1, 4)
        boxes = head.bbox_coder.decode(priors, deltas.reshape(-1, 4)).reshape(batch, -1, 4)
        if head.bbox_coder.clip_border:
            # In a traced graph the sides are tensors.
            height, width = (torch.as_tensor(side).to(image) for side in image.shape[2:])
            limit = torch.stack([width, height, width, height])
            boxes = torch.minimum(boxes.clamp(min=0), limit)
        points = head.landmark_coder.decode(priors, codes.reshape(-1, codes.shape[-1]))
        return boxes, scores, points.reshape(batch, -1, head.landmark_coder.num_points, 2)

    def _inside(self, sizes: list, image: Tensor) -> Tensor:
        """Return (N,): 1 for anchors whose cell begins inside the unpadded image, else 0."""
        inside = []
        generator = self.head.prior_generator
        levels = zip(sizes, generator.strides, generator.num_base_priors)
        for (rows, columns), (stride_x, stride_y), count in levels:
            row = torch.arange(0, rows, device=image.device) * stride_y < image.shape[2]
            column = torch.arange(0, columns, device=image.device) * stride_x < image.shape[3]
            cells = (row[:, None] & column[None, :]).reshape(-1, 1).expand(-1, count)
            inside.append(cells.reshape(-1))
        return torch.cat(inside).to(image.dtype)


def face_settings(cfg: Config) -> dict:
    """Return how a config's face detector is tested: resize, thresholds, NMS, landmark names."""
    test_cfg = cfg.model.get('test_cfg') or {}
    nms = test_cfg.get('nms', {})
    if nms.get('type', 'nms') != 'nms':
        raise ValueError(f"model.test_cfg.nms: got {nms['type']!r}, expected 'nms'")
    metainfo = cfg.get('test_dataloader', {}).get('dataset', {}).get('metainfo') or {}
    return {
        'kind': 'faces',
        'landmarks': list(metainfo.get('landmarks', [])),
        'score_thr': test_cfg.get('score_thr', 0.0),
        'nms_pre': test_cfg.get('nms_pre', -1),
        'nms_iou': nms.get('iou_threshold', 0.4),
        'nms_offset': nms.get('offset', 0),
        'max_per_img': test_cfg.get('max_per_img', -1),
        'resize': _test_resize(cfg),
    }


def input_channels(detector: nn.Module) -> int:
    """Return the channels of a detector's images: those of the backbone's first convolution."""
    return next(m for m in detector.backbone.modules() if isinstance(m, nn.Conv2d)).in_channels


def _test_resize(cfg: Config) -> dict:
    """Return how the test pipeline resizes an image: by 'factor', or to 'scale' (two sides)."""
    for step in cfg.get('test_dataloader', {}).get('dataset', {}).get('pipeline', []):
        if 'Resize' in str(step['type']):
            keep_ratio = bool(step.get('keep_ratio', False))
            scale = step.get('scale')
            if scale is not None:
                sides = [scale, scale] if isinstance(scale, int) else list(scale)
                return {'scale': sides, 'keep_ratio': keep_ratio}
            return {'factor': float(step.get('scale_factor', 1.0)), 'keep_ratio': keep_ratio}
    return {'factor': 1.0, 'keep_ratio': True}
