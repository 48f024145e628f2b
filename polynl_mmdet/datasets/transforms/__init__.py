"""Transforms that carry facial landmarks along, in mmdet's style."""

from .face_formatting import LoadFaceAnnotations, PackFaceInputs
from .face_geometry import FaceRandomFlip, FaceResize
from .random_square_crop import RandomSquareCrop
