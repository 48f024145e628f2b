"""Checkpoints: written whole, loaded without running code, and checked against the model."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from torch import nn

from ..ops.compat import SAFE_GLOBALS

# biubug6/Pytorch_Retinaface and the projects that use its key names.
_RETINAFACE_KEYS = r'(module\.)?(body\.|fpn\.|ssh\d\.|(Class|Bbox|Landmark)Head\.)'
_CONTEXT_LAYERS = ('NonLocal2d', 'ContextBlock', 'GeneralizedAttention')  # mmcv's.


@register_backend('atomic', force=True)
class AtomicBackend(LocalBackend):
    """mmengine's local backend, which never leaves half a file under a file's name.

    ``CheckpointHook(backend_args=dict(backend='atomic'))`` writes a checkpoint to a temporary file,
    flushes it to the disk and renames it. mmengine removes the checkpoints that a new one replaces
    before it writes; here they are removed after.
    """

    _superseded: list = []  # Shared: mmengine creates a backend for every call.

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + '.partial')
        with open(partial, 'wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        while self._superseded:
            old = self._superseded.pop()
            if old != str(path) and os.path.isfile(old):
                os.remove(old)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file once the next one is written."""
        self._superseded.append(str(filepath))


def force_weights_only() -> None:
    """Let torch load every file of this process with ``weights_only=True``, which runs no code.

    It sets torch's own switch, unless the user has set it or its opposite. Before torch 2.6 it does
    nothing: there mmengine's own checkpoints cannot be loaded in this way.
    """
    if SAFE_GLOBALS and 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ:
        os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')


def load_checkpoint(filename: str | Path, map_location: Any = 'cpu') -> Any:
    """Load a local checkpoint as ``torch.load`` does: since torch 2.6 without running code.

    Raises:
        ValueError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        return torch.load(os.path.expanduser(filename), map_location)
    except (OSError, EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split('\n')[0] or type(error).__name__
        raise ValueError(f'{filename}: cannot be loaded: {reason}') from error


def check_loaded(model: nn.Module, state_dict: Mapping, source: str = 'checkpoint') -> None:
    """Raise ValueError if a state dict has less than half of a model's weights, in their shapes.

    mmengine loads what fits and logs the rest. Layers that are inserted into a trained detector
    (this package's and mmcv's context layers) are not counted, and a prefix 'module.' is ignored.
    """
    inserted = tuple(
        f'{name}.'
        for name, module in model.named_modules()
        if type(module).__module__.startswith('polynl_mmdet.layers')
        or type(module).__name__ in _CONTEXT_LAYERS
    )
    needed = {
        key: value.shape
        for key, value in model.state_dict().items()
        if not key.endswith('num_batches_tracked') and not key.startswith(inserted)
    }
    renamed = {re.sub(r'^module\.', '', key): value for key, value in state_dict.items()}
    for name, module in model.named_modules():
        # Detectors and necks that rename weights when they load them.
        renames = type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
        if renames and not module._parameters and not module._buffers:
            prefix = f'{name}.' if name else ''
            module._load_from_state_dict(renamed, prefix, {}, False, [], [], [])
    shapes = {key: getattr(value, 'shape', None) for key, value in renamed.items()}
    filled = [key for key, shape in needed.items() if shapes.get(key) == shape]
    if 2 * len(filled) >= len(needed):
        return
    message = f'{source}: fits {len(filled)} of the {len(needed)} weights of the model'
    for label, keys in (
        ('missing', [key for key in needed if key not in shapes]),
        ('of another shape', [k for k in needed if k in shapes and shapes[k] != needed[k]]),
        ('not in the model', [k for k in shapes if k not in needed and not k.startswith(inserted)]),
    ):
        shown = f' ({", ".join(keys[:2])}{", ..." if len(keys) > 2 else ""})' if keys else ''
        message += f'; {len(keys)} {label}{shown}'
    if any(re.match(_RETINAFACE_KEYS, key) for key in state_dict):
        message += '. Convert a checkpoint of Pytorch_Retinaface by tools/convert_retinaface.py'
    raise ValueError(message)
