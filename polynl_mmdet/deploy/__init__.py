"""Detectors outside mmdet: ONNX files, and faces in one call."""

from .face_detector import FaceDetector, Faces, align_faces
