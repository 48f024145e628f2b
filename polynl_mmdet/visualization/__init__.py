"""Visualizers, registered in mmdet's VISUALIZERS."""

from .face_visualizer import FaceVisualizer

__all__ = ['FaceVisualizer']
