"""Drawn faces: boxes, scores and landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

# RGB of left eye, right eye, nose, left and right mouth corner: left is red, right is blue.
COLOURS = ((255, 40, 40), (40, 110, 255), (255, 225, 0), (255, 130, 190), (60, 220, 255))


@VISUALIZERS.register_module()
class FaceVisualizer(DetLocalVisualizer):
    """mmdet's DetLocalVisualizer, with the landmarks of annotated and of detected faces.

    Args:
        point_colors (Sequence[tuple[int]]): RGB of each landmark. Defaults to :data:`COLOURS`.
        **kwargs: As for DetLocalVisualizer; lines are 2 pixels wide by default.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        *args,
        point_colors: Sequence[tuple[int, int, int]] = COLOURS,
        line_width: float = 2,
        **kwargs,
    ) -> None:
        super().__init__(name, *args, line_width=line_width, **kwargs)
        self.point_colors = point_colors

    def _draw_instances(
        self,
        image: np.ndarray,
        instances: InstanceData,
        classes: list[str] | None,
        palette: list[tuple] | None,
    ) -> np.ndarray:
        """Draw boxes as mmdet does, then the landmarks that are annotated."""
        drawn = super()._draw_instances(image, instances, classes, palette)
        if 'keypoints' not in instances or not len(instances):
            return drawn
        points = np.asarray(instances.keypoints, dtype=float)
        visible = np.ones(points.shape[:2], dtype=bool)
        if 'keypoints_visible' in instances:
            visible = np.asarray(instances.keypoints_visible) > 0
        widths = np.asarray(instances.bboxes[:, 2] - instances.bboxes[:, 0])
        radii = np.clip(widths / 25, 0.8, 6)
        for index in range(points.shape[1]):
            shown = visible[:, index]
            if shown.any():
                colour = self.point_colors[index % len(self.point_colors)]
                self.draw_circles(
                    points[shown, index],
                    radii[shown],
                    edge_colors=colour,
                    face_colors=colour,
                    line_widths=1,
                )
        return self.get_image()
