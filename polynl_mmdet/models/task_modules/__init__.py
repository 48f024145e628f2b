"""Assigner and coder of RetinaFace."""

from .face_assigner import FaceAssigner
from .landmark_coder import LandmarkCoder
