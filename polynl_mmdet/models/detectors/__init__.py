"""Detectors."""

from .retinaface import RetinaFace
