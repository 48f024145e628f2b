"""Dense heads."""

from .retinaface_head import RetinaFaceHead, hard_negatives
