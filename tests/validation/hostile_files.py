"""Checkpoints that would run code, fill the memory or write elsewhere when they are loaded."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

HUGE = 1 << 40


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class SetState:
    """Creates the marker when its state is restored."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __setstate__(self, state: dict) -> None:
        Path(state['marker']).touch()


class Persistent(tuple):
    """Pickles as a persistent id, as torch.save writes storages."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> tuple | None:
        return tuple(value) if isinstance(value, Persistent) else None


def pickled(value: object, protocol: int = 2) -> bytes:
    """Return a pickle."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def saved(value: object, zipped: bool = True) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def archive(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED, old: bytes = b'') -> bytes:
    """Return a zip of these entries, behind those of an old one."""
    buffer = io.BytesIO(old)
    with zipfile.ZipFile(buffer, 'a', method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def around(pickle_bytes: bytes, *storages: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip as torch.save lays it out, with any pickle and storages."""
    entries = {'data.pkl': pickle_bytes, 'byteorder': b'little', 'version': b'3\n'}
    entries.update({f'data/{number}': data for number, data in enumerate(storages)})
    return archive({f'archive/{name}': data for name, data in entries.items()}, method)


def content(where: str = 'extra', value: object = None) -> dict:
    """Return what mmengine saves, with a value at a place such as 'meta.cfg'."""
    found = place = {
        'meta': {'epoch': 1, 'iter': 4, 'dataset_meta': {'classes': ('face',)}},
        'message_hub': {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
        'state_dict': OrderedDict(weight=torch.zeros(2, 3)),
    }
    *folders, key = where.split('.')
    for folder in folders:
        place = place[folder]
    place[key] = value
    return found


def _system(marker: Path) -> Call:
    return Call(os.system, f'touch {marker}')


def _text(text: object) -> bytes:
    return b'X' + struct.pack('<I', len(str(text))) + str(text).encode()


def _storage(elements: int, *more: object) -> Persistent:
    return Persistent(('storage', torch.FloatStorage, '0', 'cpu', elements, *more))


def _tensor(elements: int) -> bytes:
    arguments = _storage(elements), 0, (elements,), (1,), False, OrderedDict()
    return pickled(Call(torch._utils._rebuild_tensor_v2, *arguments))


def _older_format(value: object) -> bytes:
    sizes = dict(short=2, int=4, long=4)
    system = dict(protocol_version=1001, little_endian=True, type_sizes=sizes)
    return b''.join(map(pickled, (0x1950A86A20F9469CFC6C, 1001, system, value, ['0'])))


def _torch_script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def _tar(marker: Path) -> bytes:
    buffer, data = io.BytesIO(), pickled(_system(marker))
    with tarfile.open(fileobj=buffer, mode='w') as file:
        for name in ('storages', 'tensors', 'pickle', f'../{marker.name}'):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _inheriting(marker: Path) -> bytes:
    base = marker.with_name('base.py')
    base.write_text(f'open({str(marker)!r}, "w")\n', encoding='utf-8')
    return saved(content('meta.config', f'_base_ = {str(base)!r}\n'))


_OBJECTS: dict[str, Callable[[Path], object]] = {
    'os.system': _system,
    'builtins.exec': lambda marker: Call(exec, f'open({str(marker)!r}, "w")'),
    'setattr': lambda _: Call(setattr, HistoryBuffer, 'mean', None),
    'getattr of a class': lambda _: Call(getattr, HistoryBuffer, '__init__'),
    'getattr of a module': lambda _: Call(getattr, Call(__import__, 'os'), 'system'),
    'getattr chain': lambda _: Call(
        getattr, Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'), 'get'
    ),
    '__setstate__': SetState,
    'pickle.loads': lambda marker: Call(pickle.loads, pickled(_system(marker))),
    'torch.load': lambda marker: Call(torch.load, str(marker)),
    'array of objects': lambda marker: np.array([_system(marker)], dtype=object),
}
_OLDER = ('os.system', '__setstate__', 'getattr chain')
_FROM_MEMO = b'\x80\x04\x8c\x05posix\x940\x8c\x06system\x940h\x00h\x01\x93'
_CODE = "x = __import__('os').system('touch {}')\nmodel = dict(type='RetinaFace')\n"
_INFO = 'message_hub.runtime_info'

# Name to a function that gives the file's content. The marker exists once anything in it was run.
CASES: dict[str, Callable[[Path], bytes]] = {
    **{n: lambda marker, f=f: saved(content('extra', f(marker))) for n, f in _OBJECTS.items()},
    **{
        f'{name}, older format': lambda marker, f=_OBJECTS[name]: saved(f(marker), zipped=False)
        for name in _OLDER
    },
    **{
        f'bare pickle, protocol {n}': lambda marker, n=n: pickled({'x': _system(marker)}, n)
        for n in (0, 2, 4, 5)
    },
    'STACK_GLOBAL of names from the memo': lambda marker: around(
        _FROM_MEMO + _text(f'touch {marker}') + b'\x85R.'
    ),
    'INST operation': lambda marker: f"(S'touch {marker}'\niposix\nsystem\n.".encode(),
    'OBJ operation': lambda marker: around(
        b'\x80\x02(cposix\nsystem\n' + _text(f'touch {marker}') + b'o.'
    ),
    'extension registry': lambda marker: around(b'\x80\x02\x82\x01' + _text(marker) + b'\x85R.'),
    'persistent id of a module with sources': lambda marker: around(
        pickled(Persistent(('module', torch.nn.Module, str(marker), 'source')))
    ),
    'TorchScript archive': lambda _: _torch_script(),
    'tar': _tar,
    'zip of one file, as torch.hub would unpack it': lambda marker: archive(
        {marker.name: saved(_system(marker))}, zipfile.ZIP_DEFLATED
    ),
    'zip with paths that lead out of it': lambda marker: archive(
        {f'archive/../../{marker.name}': b'x', str(marker): b'x'}, old=saved(content())
    ),
    'zip bomb': lambda _: around(_tensor(1 << 23), bytes(1 << 25), method=zipfile.ZIP_DEFLATED),
    'storage larger than its record': lambda _: around(_tensor(1 << 23), bytes(64)),
    'storage of a petabyte, older format': lambda _: _older_format(_storage(1 << 48, None)),
    'bytearray of a length': lambda _: around(pickled(Call(bytearray, HUGE))),
    'tensor of a length': lambda _: around(pickled(Call(torch.FloatTensor, HUGE))),
    'array of a length': lambda _: around(pickled(Call(np.ndarray, (HUGE,)))),
    'array scalar of a length': lambda _: around(
        pickled(Call(np.float64(0).__reduce__()[0], np.dtype(f'V{(1 << 31) - 1}')))
    ),
    **{
        f'code in {w}': lambda marker, w=w: saved(content(w, _CODE.format(marker)))
        for w in ('meta.cfg', 'meta.config', f'{_INFO}.cfg')
    },
    'config text that inherits from a file': _inheriting,
    'best checkpoint that is something else': lambda marker: saved(
        content(f'{_INFO}.best_ckpt', str(marker.parent))
    ),
    'numbers of checkpoints that are paths': lambda marker: saved(
        content(f'{_INFO}.keep_ckpt_ids', [f'/../../{marker.name}'] * 9)
    ),
    'empty file': lambda _: b'',
    'HDF5': lambda _: b'\x89HDF\r\n\x1a\n' + bytes(2000),
    'JSON': lambda _: b'{"state_dict": {"weight": [1, 2]}}',
    'random bytes': lambda _: np.random.default_rng(0).bytes(5000),
    'gzip': lambda _: bytes.fromhex('1f8b08000000000002ff4b4c4a06003d0f7a7d03000000'),
    'cut-off zip': lambda _: saved(content())[:-300],
}
