"""Datasets and transforms, registered in mmdet's DATASETS and TRANSFORMS."""

from .coco import CheckedCocoDataset

__all__ = ['CheckedCocoDataset']
