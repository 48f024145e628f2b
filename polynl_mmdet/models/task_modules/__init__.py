"""Parts of heads that hold no weights."""

from .face_assigner import FaceAssigner
from .hard_negatives import hard_negatives
from .landmark_coder import LandmarkCoder

__all__ = ['FaceAssigner', 'LandmarkCoder', 'hard_negatives']
