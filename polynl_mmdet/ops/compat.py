"""What differs between PyTorch 2.0 and 2.15."""

from __future__ import annotations

import torch

# torch.bmm(out_dtype=) gives the float32 sums of 16-bit operands: on CUDA, not on ROCm.
BMM_OUT_DTYPE = torch.version.hip is None and hasattr(torch.ops.aten.bmm, 'dtype')

# Whether add_safe_globals takes stand-ins with the name of what they stand for.
SAFE_GLOBALS = torch.__version__ >= (2, 6)

# torch.onnx.export by tracing: the only way before torch 2.5.
ONNX_TRACING = {'dynamo': False} if torch.__version__ >= (2, 5) else {}

_AUTOCAST_BY_DEVICE = hasattr(torch, 'get_autocast_dtype')  # torch 2.4
_compiler = getattr(torch, 'compiler', None)  # torch 2.1
if hasattr(_compiler, 'is_compiling'):  # torch 2.2
    is_compiling = torch.compiler.is_compiling
else:
    from torch._dynamo import is_compiling
# Before torch 2.7 torch.export cannot be told from a compiler.
_is_exporting = getattr(_compiler, 'is_exporting', is_compiling)


def is_exporting() -> bool:
    """Return whether a graph is recorded by torch.jit.trace, torch.onnx or torch.export."""
    return torch.jit.is_tracing() or _is_exporting()


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Return autocast's dtype on a device type, None where autocast is disabled."""
    if _AUTOCAST_BY_DEVICE:
        enabled = device_type != 'meta' and torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if enabled else None
    if device_type == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    enabled = device_type == 'cuda' and torch.is_autocast_enabled()
    return torch.get_autocast_gpu_dtype() if enabled else None


def add_safe_globals(pairs: list[tuple[object, str]]) -> None:
    """Let ``torch.load(weights_only=True)``, torch 2.6's default, accept objects by name."""
    if SAFE_GLOBALS:
        torch.serialization.add_safe_globals(pairs)
