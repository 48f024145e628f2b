"""Visualizers, registered in mmdet's VISUALIZERS."""

from .face_visualizer import FaceVisualizer
