"""The modules that are exported: from pixels to a detector's pyramid, or to decoded faces.

Both take pixels as OpenCV reads them; the channel order, normalisation and padding of the config's
``data_preprocessor`` are part of the graph. Every size, anchors included, is computed from the
input's, so that a traced graph takes any height, width and batch size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from polynl_mmdet.errors import InputError
from polynl_mmdet.models import RetinaFaceHead


class PixelInput(nn.Module):
    """A data preprocessor for whole batches, in operations that ONNX has.

    Args:
        preprocessor (nn.Module): mmengine's ImgDataPreprocessor or mmdet's DetDataPreprocessor.

    Raises:
        InputError: Another kind of preprocessor.
    """

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        if not isinstance(preprocessor, ImgDataPreprocessor):
            raise InputError(
                'model.data_preprocessor',
                type(preprocessor).__name__,
                'accepted: DetDataPreprocessor or ImgDataPreprocessor',
            )
        mean, std = torch.zeros(3), torch.ones(3)
        if preprocessor._enable_normalize:
            mean, std = preprocessor.mean, preprocessor.std
        self.register_buffer('mean', mean.reshape(1, -1, 1, 1).clone())
        self.register_buffer('std', std.reshape(1, -1, 1, 1).clone())
        self.order = [2, 1, 0] if preprocessor._channel_conversion else [0, 1, 2]
        self.divisor = preprocessor.pad_size_divisor
        self.pad_value = float(preprocessor.pad_value)

    def forward(self, image: Tensor) -> Tensor:
        """Normalise, then pad at the right and at the bottom.

        Args:
            image (Tensor): (B, 3, H, W) float32, BGR, 0 to 255.

        Returns:
            Tensor: (B, 3, H', W'), both sides a multiple of the config's ``pad_size_divisor``.
        """
        x = (image[:, self.order] - self.mean) / self.std
        if self.divisor > 1:
            bottom, right = (
                (self.divisor - side % self.divisor) % self.divisor for side in x.shape[2:]
            )
            x = F.pad(x, (0, right, 0, bottom), value=self.pad_value)
        return x


class PyramidGraph(nn.Module):
    """Backbone and neck of any detector.

    Args:
        detector (nn.Module): With ``data_preprocessor`` and ``extract_feat``, as in mmdet.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.pixels = PixelInput(detector.data_preprocessor)
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Turn pixels (B, 3, H, W), float32, BGR, 0 to 255, into levels (B, C, H_i, W_i)."""
        return tuple(self.detector.extract_feat(self.pixels(image)))


class FaceDetectorGraph(nn.Module):
    """A RetinaFace without its non-maximum suppression.

    Boxes, scores and landmarks of all N anchors are decoded. The user keeps those above a score
    and applies the NMS: ONNX's own NonMaxSuppression counts areas without WIDER FACE's extra
    pixel, and would not give the detector's own results.

    Args:
        detector (nn.Module): With a RetinaFaceHead of one class.

    Raises:
        InputError: Another head, or more classes.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        head = getattr(detector, 'bbox_head', None)
        if not isinstance(head, RetinaFaceHead) or head.num_classes != 1:
            raise InputError(
                'model.bbox_head',
                f'{type(head).__name__} of {getattr(head, "num_classes", "no")} classes',
                'accepted: a RetinaFaceHead of one class',
            )
        self.pixels = PixelInput(detector.data_preprocessor)
        self.detector = detector
        self.head = head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn pixels into faces.

        Args:
            image (Tensor): (B, 3, H, W) float32, BGR, 0 to 255.

        Returns:
            tuple[Tensor]: Boxes x1 y1 x2 y2 (B, N, 4) in pixels of ``image``; scores (B, N), 0
            for anchors in the padding; landmarks (B, N, 5, 2) in pixels.
        """
        head, batch = self.head, image.shape[0]
        outputs = head(self.detector.extract_feat(self.pixels(image)))
        sizes = [scores.shape[-2:] for scores in outputs[0]]
        scores, deltas, codes = (
            torch.cat([_per_anchor(level, size) for level in levels], dim=1)
            for levels, size in zip(
                outputs,
                (
                    head.cls_out_channels,
                    head.bbox_coder.encode_size,
                    head.landmark_coder.encode_size,
                ),
            )
        )
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
        scores = scores.squeeze(-1)
        if self.pixels.divisor > 1:
            scores = scores * self._inside(sizes, image)

        priors = torch.cat(head.prior_generator.grid_priors(sizes, device=image.device))
        priors = priors[None].expand(batch, -1, -1).reshape(-1, 4)
        boxes = head.bbox_coder.decode(priors, deltas.reshape(-1, 4)).reshape(batch, -1, 4)
        if head.bbox_coder.clip_border:
            width, height = _as_tensor(image.shape[3], image), _as_tensor(image.shape[2], image)
            limit = torch.stack([width, height, width, height])
            boxes = torch.minimum(boxes.clamp(min=0), limit)
        points = head.landmark_coder.decode(priors, codes.reshape(-1, codes.shape[-1]))
        return boxes, scores, points.reshape(batch, -1, head.landmark_coder.num_points, 2)

    def _inside(self, sizes: list, image: Tensor) -> Tensor:
        """Return (N,): 1 for anchors whose cell begins inside the unpadded image, else 0."""
        inside = []
        generator = self.head.prior_generator
        for (rows, columns), (stride_x, stride_y), count in zip(
            sizes, generator.strides, generator.num_base_priors
        ):
            row = torch.arange(0, rows, device=image.device) * stride_y < image.shape[2]
            column = torch.arange(0, columns, device=image.device) * stride_x < image.shape[3]
            cells = (row[:, None] & column[None, :]).reshape(-1, 1).expand(-1, count)
            inside.append(cells.reshape(-1))
        return torch.cat(inside).to(image.dtype)


def _per_anchor(level: Tensor, size: int) -> Tensor:
    """Reshape a branch's map (B, A * size, H, W) to (B, H * W * A, size), in anchor order."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, size)


def _as_tensor(side: int | Tensor, like: Tensor) -> Tensor:
    """Return a side as a scalar tensor, which it is already while a graph is traced."""
    return torch.as_tensor(side, device=like.device).to(like.dtype)
