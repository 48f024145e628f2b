"""What is needed to repeat one training iteration, as a folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from polynl_mmdet.engine.checkpoints import load_checkpoint, write_atomically
from polynl_mmdet.engine.plain_batch import from_plain, to_plain
from polynl_mmdet.errors import InputError

STATE, CONFIG = 'iteration.pth', 'config.py'
_KEYS = ('about', 'batch', 'state_dict', 'generators')


def write_record(
    folder: Path,
    about: dict,
    batch: Any,
    before: dict,
    model: torch.nn.Module,
    config: Config,
) -> None:
    """Write an iteration down.

    Args:
        folder (Path): Where to; it is made.
        about (dict): What a reader wants to know: iteration, losses, images.
        batch (Any): As the data loader gave it.
        before (dict): ``generators`` and ``buffers`` of before the forward pass.
        model (nn.Module): With the weights of before the step.
        config (Config): To build the model from.

    Raises:
        InputError: A file cannot be written.
    """
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    # The forward pass may have put into the norms' statistics what should be found.
    for name, value in before['buffers'].items():
        if name in weights:
            weights[name] = value.cpu()
    content = io.BytesIO()
    torch.save(
        dict(
            about=about,
            batch=to_plain(batch),
            state_dict=weights,
            generators=before['generators'],
        ),
        content,
    )
    write_atomically(folder / STATE, content.getvalue())
    write_atomically(folder / CONFIG, config.pretty_text.encode())


def read_record(folder: str | Path) -> dict:
    """Read what :func:`write_record` wrote; nothing in it is run.

    Args:
        folder (str or Path): The folder.

    Returns:
        dict: ``about``, ``batch`` (as a model takes it), ``state_dict``, ``generators``.

    Raises:
        InputError: It is missing, damaged, or something else.
    """
    path = Path(folder) / STATE
    record = load_checkpoint(str(path))
    missing = [key for key in _KEYS if not isinstance(record, dict) or key not in record]
    if missing:
        raise InputError(str(path), f'no {", ".join(missing)}', 'accepted: a recorded iteration')
    record['batch'] = from_plain(record['batch'])
    return record
