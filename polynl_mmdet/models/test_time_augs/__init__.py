"""Test-time augmentation."""

from .box_voting import box_voting
from .face_tta import FaceTTAModel
