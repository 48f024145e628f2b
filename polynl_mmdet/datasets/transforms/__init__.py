"""Transforms that carry facial landmarks along, in mmdet's style."""

from .face_transforms import FaceRandomFlip, FaceResize, LoadFaceAnnotations, PackFaceInputs
from .random_square_crop import RandomSquareCrop
