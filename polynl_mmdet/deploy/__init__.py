"""Export detectors as ONNX files. Needs ``onnx`` and ``onnxruntime``."""

from .graphs import FaceDetectorGraph, PyramidGraph
from .onnx_file import Difference, compare, write_onnx

__all__ = ['Difference', 'FaceDetectorGraph', 'PyramidGraph', 'compare', 'write_onnx']
