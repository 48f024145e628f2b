"""Facial landmarks relative to anchors."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class LandmarkCoder:
    """Points as offsets from an anchor's centre, in anchor sizes (RetinaFace, Sec. 3.1).

    ``point = centre + std * size * code``, width and height each on their own axis. The inverse
    of itself: decode(anchors, encode(anchors, points)) gives the points.

    Args:
        num_points (int): Points of one object. Defaults to 5.
        std (float): Size of one unit of code in anchor sizes; 0.1 is the SSD variance. Defaults
            to 0.1.
    """

    def __init__(self, num_points: int = 5, std: float = 0.1) -> None:
        self.num_points = num_points
        self.std = std

    @property
    def encode_size(self) -> int:
        """int: Numbers that code the points of one anchor."""
        return 2 * self.num_points

    def encode(self, anchors: Tensor, points: Tensor) -> Tensor:
        """Code of points seen from anchors.

        Args:
            anchors (Tensor): Boxes x1 y1 x2 y2, (n, 4), pixels.
            points (Tensor): (n, num_points, 2), pixels.

        Returns:
            Tensor: (n, num_points, 2).
        """
        centres, sizes = _centres_and_sizes(anchors)
        return (points - centres) / (sizes * self.std)

    def decode(self, anchors: Tensor, codes: Tensor) -> Tensor:
        """Points that codes mean.

        Args:
            anchors (Tensor): Boxes x1 y1 x2 y2, (n, 4), pixels.
            codes (Tensor): (n, 2 * num_points) or (n, num_points, 2).

        Returns:
            Tensor: (n, num_points, 2), pixels.
        """
        centres, sizes = _centres_and_sizes(anchors)
        return centres + codes.reshape(-1, self.num_points, 2) * (sizes * self.std)


def _centres_and_sizes(anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Tensors (n, 1, 2) of boxes' centres and of their widths and heights."""
    corners = anchors.reshape(-1, 2, 2)
    return corners.mean(dim=1, keepdim=True), corners[:, 1:] - corners[:, :1]
