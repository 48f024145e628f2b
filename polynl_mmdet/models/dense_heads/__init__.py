"""Dense heads."""

from .retinaface_head import RetinaFaceHead, hard_negatives

__all__ = ['RetinaFaceHead', 'hard_negatives']
