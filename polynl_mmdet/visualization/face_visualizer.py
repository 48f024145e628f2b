"""Draw faces: boxes, scores and landmarks."""

from __future__ import annotations

import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

# RGB of left eye, right eye, nose, left and right mouth corner; other landmarks repeat them.
LANDMARK_COLORS = ((255, 40, 40), (40, 110, 255), (255, 225, 0), (255, 130, 190), (60, 220, 255))
BOX_COLOR = (60, 255, 60)


@VISUALIZERS.register_module()
class FaceVisualizer(DetLocalVisualizer):
    """mmdet's DetLocalVisualizer for faces, annotated or detected.

    Scores are drawn above the boxes and hide nothing of the faces; landmarks are dots. Args as for
    DetLocalVisualizer.
    """

    def __init__(self, name: str = 'visualizer', *args, **kwargs) -> None:
        super().__init__(name, *args, **{'bbox_color': BOX_COLOR, 'line_width': 1.5, **kwargs})

    def _draw_instances(
        self,
        image: np.ndarray,
        instances: InstanceData,
        classes: list[str] | None,
        palette: list[tuple] | None,
    ) -> np.ndarray:
        """Draw the faces of one data sample; RGB in and out."""
        self.set_image(image)
        # matplotlib would shrink the image to show faces that extend beyond it.
        self.ax_save.autoscale(False)
        if not len(instances):
            return self.get_image()
        boxes = np.asarray(instances.bboxes, dtype=float)
        widths = boxes[:, 2] - boxes[:, 0]
        self.draw_bboxes(
            boxes, edge_colors=self.bbox_color, line_widths=self.line_width, alpha=self.alpha
        )
        if 'scores' in instances:
            for box, width, score in zip(boxes, widths, np.asarray(instances.scores)):
                self.draw_texts(
                    f'{score:.2f}',
                    np.array([box[0], max(box[1] - 1, 0)]),
                    font_sizes=int(np.clip(width / 4, 6, 14)),
                    colors=self.bbox_color,
                    vertical_alignments='bottom' if box[1] > 8 else 'top',
                    bboxes=dict(facecolor='black', alpha=0.5, pad=0.5, edgecolor='none'),
                )
        if 'keypoints' in instances:
            self._draw_points(instances, np.clip(widths / 25, 0.7, 6))
        return self.get_image()

    def _draw_points(self, instances: InstanceData, radii: np.ndarray) -> None:
        points = np.asarray(instances.keypoints, dtype=float)
        visible = np.ones(points.shape[:2], dtype=bool)
        if 'keypoints_visible' in instances:
            visible = np.asarray(instances.keypoints_visible) > 0
        for index in range(points.shape[1]):
            shown = visible[:, index]
            if shown.any():
                color = LANDMARK_COLORS[index % len(LANDMARK_COLORS)]
                self.draw_circles(
                    points[shown, index],
                    radii[shown],
                    edge_colors=color,
                    face_colors=color,
                    line_widths=0.5,
                )
