"""What a loaded checkpoint holds that mmengine acts on: a config's text and a file to delete.

A checkpoint of plain text and tensors can still do harm after it is loaded. mmengine executes the
config text in it as Python (``Runner.resume`` that under ``meta.config``, ``DetInferencer`` without
a config that under ``message_hub.runtime_info.cfg`` or ``meta.cfg``), and after a resumed training
finds a better checkpoint it deletes, as a folder with all in it if it is one, whatever path stands
under ``message_hub.runtime_info.best_ckpt``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from polynl_mmdet.errors import InputError

_BEST_NAME = re.compile(r'best_[^/\\]*\.pth')
_CONSTRUCTORS = ('dict', 'slice', 'range')
# Text that mmengine writes for a config holds nothing but these.
_PLAIN = (
    ast.Module, ast.Expr, ast.Assign, ast.Name, ast.Store, ast.Load, ast.Constant, ast.List,
    ast.Tuple, ast.Set, ast.Dict, ast.keyword, ast.UnaryOp, ast.USub, ast.UAdd, ast.Attribute,
)  # fmt: skip


def check_content(filename: str, checkpoint: Any) -> None:
    """Check the parts of a checkpoint that mmengine would execute or delete.

    Args:
        filename (str): The checkpoint, for the error.
        checkpoint (Any): What it holds.

    Raises:
        InputError: A config text that is more than plain values, or inherits from another file; a
            best checkpoint whose name is not that of a best checkpoint; numbers of checkpoints
            that are no numbers.
    """
    for where, text in _config_texts(checkpoint):
        found = _not_plain(text)
        if found:
            raise InputError(
                f'{filename}: {where}',
                f'refused, it holds {found}; nothing was run',
                'accepted: the text of a config, with plain values alone',
            )
    runtime = _runtime_info(checkpoint)
    for key, value in runtime.items():
        if not str(key).startswith('best_ckpt') or value is None:
            continue
        name = value.replace('\\', '/').rpartition('/')[2] if isinstance(value, str) else ''
        if not _BEST_NAME.fullmatch(name):
            raise InputError(
                f'{filename}: message_hub.runtime_info.{key}',
                f'refused, training would delete {value!r}',
                'accepted: a file best_*.pth',
            )
    numbers = runtime.get('keep_ckpt_ids')
    if numbers is not None and not all(type(n) is int for n in numbers):
        raise InputError(
            f'{filename}: message_hub.runtime_info.keep_ckpt_ids',
            f'refused, training would delete the checkpoints {list(numbers)!r}',
            'accepted: numbers of epochs or iterations',
        )


def _runtime_info(checkpoint: Any) -> Mapping:
    hub = checkpoint.get('message_hub') if isinstance(checkpoint, Mapping) else None
    info = hub.get('runtime_info') if isinstance(hub, Mapping) else None
    return info if isinstance(info, Mapping) else {}


def _config_texts(checkpoint: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(checkpoint, Mapping):
        return
    meta = checkpoint.get('meta')
    if isinstance(meta, Mapping):
        yield from ((f'meta.{key}', meta[key]) for key in ('cfg', 'config') if key in meta)
    if 'cfg' in _runtime_info(checkpoint):
        yield 'message_hub.runtime_info.cfg', _runtime_info(checkpoint)['cfg']


def _not_plain(text: Any) -> str:
    """What a config text holds beside plain values; '' if nothing."""
    if not isinstance(text, str):
        return '' if text is None else f'a {type(text).__name__}'
    if '{{' in text:
        return 'a variable {{ }} that would be put in'
    try:
        tree = ast.parse(text.replace('\r', '\n'))
    except (SyntaxError, ValueError):
        return ''  # Nobody can execute it. Texts of configs with classes in them are like that.
    except (MemoryError, RecursionError):
        return 'text too deep to be looked at'
    for node in ast.walk(tree):
        line = getattr(node, 'lineno', 0)
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _CONSTRUCTORS:
                return f'a call of {ast.unparse(node.func)} in line {line}'
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if node.id == '_base_':
                return f'a _base_ in line {line}'
        elif not isinstance(node, _PLAIN):
            return f'{type(node).__name__} in line {line}'
    return ''
