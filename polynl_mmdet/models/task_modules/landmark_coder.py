"""Landmarks relative to anchors."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class LandmarkCoder:
    """Encode points as offsets from an anchor's center, in anchor sizes (RetinaFace, Sec. 3.1).

    ``point = center + std * size * code``, x by the width and y by the height.

    Args:
        num_points (int): Points per object. Defaults to 5.
        std (float): Anchor sizes per unit of code; 0.1 is SSD's variance. Defaults to 0.1.
    """

    def __init__(self, num_points: int = 5, std: float = 0.1) -> None:
        self.num_points = num_points
        self.std = std

    @property
    def encode_size(self) -> int:
        """int: Size of the code of one anchor."""
        return 2 * self.num_points

    def encode(self, anchors: Tensor, points: Tensor) -> Tensor:
        """Encode points (n, num_points, 2) relative to anchors x1 y1 x2 y2 (n, 4), in pixels."""
        centers, sizes = _centers_and_sizes(anchors)
        return (points - centers) / (sizes * self.std)

    def decode(self, anchors: Tensor, codes: Tensor) -> Tensor:
        """Decode (n, 2 * num_points) or (n, num_points, 2) to points (n, num_points, 2)."""
        centers, sizes = _centers_and_sizes(anchors)
        return centers + codes.reshape(-1, self.num_points, 2) * (sizes * self.std)


def _centers_and_sizes(anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centers and the sizes of boxes, (n, 1, 2) each."""
    corners = anchors.reshape(-1, 2, 2)
    return corners.mean(dim=1, keepdim=True), corners[:, 1:] - corners[:, :1]
