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
    """Difference between an output of the file and PyTorch's."""

    name: str
    absolute: float  # max |a - b|
    relative: float  # absolute / max(1, max |a|), a PyTorch's


def write_onnx(
    graph: nn.Module,
    example: Tensor,
    path: str | Path,
    outputs: dict[str, dict[int, str]],
    metadata: dict,
) -> None:
    """Trace a graph and write it, for any batch size, height and width.

    Args:
        graph (nn.Module): Takes one tensor; in evaluation mode.
        example (Tensor): An input, (B, channels, H, W).
        path (str or Path): File to write.
        outputs (dict[str, dict[int, str]]): Name of each output, and its dynamic axes.
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
    """Run a graph and its file on the same pixels (B, 3, H, W).

    Returns:
        list[Difference]: One per output; infinite if shapes differ or a value is not finite.
    """
    with torch.no_grad():
        expected = [output.numpy() for output in graph(image)]
    names = [output.name for output in session.get_outputs()]
    differences = []
    for name, a, b in zip(names, expected, session.run(names, {'image': image.numpy()})):
        absolute = float(np.abs(a - b).max(initial=0)) if a.shape == b.shape else np.inf
        relative = absolute / max(1.0, float(np.abs(a).max(initial=0)))
        if not np.isfinite(relative):
            absolute = relative = np.inf
        differences.append(Difference(name, absolute, relative))
    return differences
