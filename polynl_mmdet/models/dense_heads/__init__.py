"""Dense heads."""

from .retinaface_head import RetinaFaceHead

__all__ = ['RetinaFaceHead']
