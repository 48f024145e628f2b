"""The WIDER FACE formats and protocol in NumPy and SciPy: imports nothing of mm*."""

from .average_precision import WiderFaceScores, score_wider_face
from .ground_truth import WiderFaceGroundTruth, read_ground_truth
from .predictions import read_predictions, write_predictions
