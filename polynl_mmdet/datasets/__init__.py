"""Datasets and transforms, registered in mmdet's DATASETS and TRANSFORMS."""

from .coco import CheckedCocoDataset
from .retinaface_dataset import RetinaFaceDataset
from .transforms import (
    FaceRandomFlip,
    FaceResize,
    LoadFaceAnnotations,
    PackFaceInputs,
    RandomSquareCrop,
)

__all__ = [
    'CheckedCocoDataset',
    'FaceRandomFlip',
    'FaceResize',
    'LoadFaceAnnotations',
    'PackFaceInputs',
    'RandomSquareCrop',
    'RetinaFaceDataset',
]
