"""Metrics: pure NumPy functions, and the mmengine classes over them."""

from .._stack import present
from .wider_face_ap import WiderFaceScores, score_wider_face
from .wider_face_ground_truth import WiderFaceGroundTruth, read_ground_truth, write_ground_truth
from .wider_face_predictions import read_predictions, write_predictions

__all__ = [
    'WiderFaceGroundTruth',
    'WiderFaceScores',
    'read_ground_truth',
    'read_predictions',
    'score_wider_face',
    'write_ground_truth',
    'write_predictions',
]

if present('mmengine'):
    from .face_landmark_metric import FaceLandmarkMetric
    from .wider_face_metric import WIDERFaceMetric

    __all__ += ['FaceLandmarkMetric', 'WIDERFaceMetric']

if present('mmdet'):
    from .coco_metric import CheckedCocoMetric

    __all__ += ['CheckedCocoMetric']
