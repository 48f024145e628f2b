"""Datasets and transforms, registered in mmdet's DATASETS and TRANSFORMS."""

from .coco import OrderedCocoDataset
from .retinaface_dataset import RetinaFaceDataset
from .transforms import (
    FaceRandomFlip,
    FaceResize,
    LoadFaceAnnotations,
    PackFaceInputs,
    RandomSquareCrop,
)
