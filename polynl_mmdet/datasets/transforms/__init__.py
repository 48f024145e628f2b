"""Transforms that carry facial landmarks along, in mmdet's style."""

from .face_formatting import LoadFaceAnnotations, PackFaceInputs
from .face_geometry import FaceRandomFlip, FaceResize
from .load_checked_image import LoadCheckedImage
from .pack_flat_inputs import PackFlatInputs
from .random_square_crop import RandomSquareCrop

__all__ = [
    'FaceRandomFlip',
    'FaceResize',
    'LoadCheckedImage',
    'LoadFaceAnnotations',
    'PackFaceInputs',
    'PackFlatInputs',
    'RandomSquareCrop',
]
