"""Check what mmengine would act on after a load: the text of a config, and files to delete.

A checkpoint of plain text and tensors can still do harm. mmengine executes the config text in it
as Python (``Runner.resume`` that under ``meta.config``, ``DetInferencer`` without a config that
under ``message_hub.runtime_info.cfg`` or ``meta.cfg``), and when a resumed training finds a better
checkpoint it deletes whatever ``message_hub.runtime_info.best_ckpt`` names, folders with all in
them too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from polynl_mmdet.errors import InputError

_BEST_NAME = re.compile(r'(.*[/\\])?best_[^/\\]*\.pth', re.DOTALL)
# What mmengine writes for a config: assignments of literals, and of calls of these three.
_CONSTRUCTORS = ('dict', 'slice', 'range')
_LITERALS = (
    ast.Module, ast.Expr, ast.Assign, ast.Name, ast.Store, ast.Load, ast.Constant, ast.List,
    ast.Tuple, ast.Set, ast.Dict, ast.keyword, ast.UnaryOp, ast.USub, ast.UAdd, ast.Attribute,
)  # fmt: skip


def check_content(filename: str, checkpoint: Any) -> None:
    """Check the parts of a checkpoint that mmengine would execute or delete.

    Args:
        filename (str): The checkpoint, for the error.
        checkpoint (Any): What it holds.

    Raises:
        InputError: A config text with more than plain values, or one that inherits from a file; a
            best checkpoint that is not named like one; numbers of checkpoints that are no numbers.
    """
    meta = _mapping(checkpoint, 'meta')
    runtime = _mapping(_mapping(checkpoint, 'message_hub'), 'runtime_info')

    def refuse(where: str, found: str, accepted: str) -> None:
        raise InputError(f'{filename}: {where}', f'refused, {found}', f'accepted: {accepted}')

    texts = {'meta.cfg': meta.get('cfg'), 'meta.config': meta.get('config')}
    texts['message_hub.runtime_info.cfg'] = runtime.get('cfg')
    for where, text in texts.items():
        code = _find_code(text)
        if code:
            refuse(where, f'it holds {code}; nothing was run', 'the text of a config of values')
    for key, value in runtime.items():
        is_path = str(key).startswith('best_ckpt') and value is not None
        if is_path and not (isinstance(value, str) and _BEST_NAME.fullmatch(value)):
            where = f'message_hub.runtime_info.{key}'
            refuse(where, f'training would delete {value!r}', 'a file best_*.pth')
    numbers = runtime.get('keep_ckpt_ids') or []
    if not all(type(number) is int for number in numbers):
        where = 'message_hub.runtime_info.keep_ckpt_ids'
        refuse(where, f'training would delete {list(numbers)!r}', 'numbers of epochs or iterations')


def _mapping(parent: Any, key: str) -> Mapping:
    child = parent.get(key) if isinstance(parent, Mapping) else None
    return child if isinstance(child, Mapping) else {}


def _find_code(text: Any) -> str:
    """Return what a config text holds beside plain values; '' if nothing."""
    if not isinstance(text, str):
        return '' if text is None else f'a {type(text).__name__}'
    if '{{' in text:
        return 'a variable {{ }}, which mmengine replaces'
    try:
        tree = ast.parse(text.replace('\r', '\n'))
    except (SyntaxError, ValueError):
        return ''  # It cannot be executed either. mmengine writes classes as such text.
    except (MemoryError, RecursionError):
        return 'text that is nested too deeply to be checked'
    for node in ast.walk(tree):
        where = f'in line {getattr(node, "lineno", 0)}'
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _CONSTRUCTORS:
                return f'a call of {ast.unparse(node.func)} {where}'
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if node.id == '_base_':
                return f'a _base_ {where}'
        elif not isinstance(node, _LITERALS):
            return f'{type(node).__name__} {where}'
    return ''
