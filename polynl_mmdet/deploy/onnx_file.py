"""Write a module as an ONNX file, and compare the file with PyTorch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from ..ops.compat import ONNX_TRACING
from .adaptive_pooling import OPSET, exportable_adaptive_pooling

METADATA_KEY = 'polynl_mmdet'


class Difference(NamedTuple):
    """Difference between an output of the file and PyTorch's.

    Attributes:
        name (str): The output.
        absolute (float): Largest |a - b|.
        relative (float): The same over the largest |a| of PyTorch's output, or over 1 where that
            is smaller.
    """

    name: str
    absolute: float
    relative: float


def write_onnx(
    graph: nn.Module,
    example: Tensor,
    path: str | Path,
    outputs: dict[str, dict[int, str]],
    metadata: dict,
) -> None:
    """Trace a graph and write it, for any batch size, height and width.

    torch's tracer needs only ``onnx`` and keeps the computation of sizes.

    Args:
        graph (nn.Module): Takes one tensor; in evaluation mode.
        example (Tensor): An input, (B, channels, H, W).
        path (str or Path): File to write.
        outputs (dict[str, dict[int, str]]): Name of each output, and its dynamic axes. The other
            axes are written with the size that the example gives.
        metadata (dict): Stored as JSON in the file's ``metadata_props`` under 'polynl_mmdet'.

    Raises:
        ValueError: The graph has an operation that ONNX lacks.
    """
    free = {'image': {0: 'batch', 2: 'height', 3: 'width'}, **outputs}
    with warnings.catch_warnings(), torch.no_grad(), exportable_adaptive_pooling():
        # Comparisons of sizes in checks, and the tracer's own deprecation.
        warnings.simplefilter('ignore')
        try:
            torch.onnx.export(
                graph,
                (example,),
                str(path),
                **ONNX_TRACING,
                opset_version=OPSET,
                input_names=['image'],
                output_names=list(outputs),
                dynamic_axes=free,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ValueError(f'ONNX cannot hold the graph: {str(error).splitlines()[0]}') from error
        results = graph(example)
    model = onnx.load(str(path))
    for output, result in zip(
        model.graph.output, (results,) if isinstance(results, Tensor) else results
    ):
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            if axis not in outputs[output.name]:
                dim.dim_value = result.shape[axis]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def compare(
    graph: nn.Module, session: onnxruntime.InferenceSession, image: Tensor
) -> list[Difference]:
    """Run a graph and its file on the same pixels.

    Args:
        graph (nn.Module): As it was written.
        session (onnxruntime.InferenceSession): Of the file.
        image (Tensor): (B, 3, H, W) float32.

    Returns:
        list[Difference]: One per output; infinite if shapes differ or a value is not finite.
    """
    with torch.no_grad():
        expected = [output.numpy() for output in graph(image)]
    names = [output.name for output in session.get_outputs()]
    actual = session.run(names, {'image': image.numpy()})
    return [_difference(*triple) for triple in zip(names, expected, actual)]


def _difference(name: str, expected: np.ndarray, actual: np.ndarray) -> Difference:
    if expected.shape != actual.shape or not (
        np.isfinite(expected).all() and np.isfinite(actual).all()
    ):
        return Difference(name, float('inf'), float('inf'))
    absolute = float(np.abs(expected - actual).max(initial=0))
    return Difference(name, absolute, absolute / max(1.0, float(np.abs(expected).max(initial=0))))
