"""Files that a checkpoint should not be: each would run code, fill the memory or write elsewhere.

``CASES`` maps a name to a function of two paths: the file to write, and a marker that exists once
anything in the file was run.
"""

from __future__ import annotations

import builtins
import io
import os
import pickle
import pickletools
import struct
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

CASES: dict[str, Callable[[Path, Path], None]] = {}


def case(name: str) -> Callable:
    """Enter a writer in ``CASES``."""

    def enter(write: Callable[[Path, Path], None]) -> Callable:
        CASES[name] = write
        return write

    return enter


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class SetState:
    """Has a side effect when its state comes back."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __setstate__(self, state: dict) -> None:
        Path(state['marker']).touch()


class Items:
    """Has a side effect for every item that a pickle appends."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def append(self, item: str) -> None:
        """Touch the file that the item names."""
        Path(item).touch()

    extend = append

    def __reduce__(self):
        return Items, ('',), None, iter([self.marker])


def content(**more: object) -> dict:
    """What mmengine saves, and more."""
    return {
        'meta': {'epoch': 1, 'iter': 4, 'dataset_meta': {'classes': ('face',)}},
        'message_hub': {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
        'state_dict': OrderedDict(weight=torch.zeros(2, 3)),
        **more,
    }


def _calls(marker: Path) -> dict[str, object]:
    touch = f'touch {marker}'
    code = f'open({str(marker)!r}, "w")'
    return {
        'os.system': Call(os.system, touch),
        'builtins.exec': Call(exec, code),
        'builtins.eval': Call(eval, code),
        'builtins.compile': builtins.compile,
        'builtins.__import__': Call(__import__, 'this'),
        'subprocess.Popen': Call(subprocess.Popen, ['touch', str(marker)]),
        'setattr': Call(setattr, HistoryBuffer, 'mean', None),
        'getattr of a class': Call(getattr, HistoryBuffer, '__init__'),
        'getattr of a module': Call(getattr, Call(__import__, 'os'), 'system'),
        'getattr chain': Call(
            getattr, Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'), 'get'
        ),
        '__setstate__': SetState(marker),
        'append': Items(marker),
        'pickle.loads': Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        'torch.load': Call(torch.load, str(marker)),
        'array of objects': np.array([Call(os.system, touch)], dtype=object),
    }


def _writer(name: str, zipped: bool) -> Callable[[Path, Path], None]:
    def write(path: Path, marker: Path) -> None:
        extra = content(extra=_calls(marker)[name])
        torch.save(extra, path, _use_new_zipfile_serialization=zipped)

    return write


for _name in _calls(Path('marker')):
    CASES[_name] = _writer(_name, zipped=True)
for _name in ('os.system', '__setstate__', 'getattr chain'):
    CASES[f'{_name}, older format'] = _writer(_name, zipped=False)


def _bare(protocol: int) -> Callable[[Path, Path], None]:
    def write(path: Path, marker: Path) -> None:
        path.write_bytes(pickle.dumps({'x': Call(os.system, f'touch {marker}')}, protocol))

    return write


for _protocol in (0, 2, 4, 5):
    CASES[f'bare pickle, protocol {_protocol}'] = _bare(_protocol)


def zip_of(path: Path, pickled: bytes, **records: bytes) -> None:
    """A zip as torch.save lays it out, around any pickle."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickled)
        archive.writestr('archive/byteorder', b'little')
        for name, data in records.items():
            archive.writestr(f'archive/data/{name.lstrip("_")}', data)
        archive.writestr('archive/version', b'3\n')


def _pickled(*operations: bytes) -> bytes:
    return b'\x80\x02' + b''.join(operations) + b'.'


def _text(text: str) -> bytes:
    data = text.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def _int(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b'\x8a' + bytes([len(data)]) + data


def _global(path: str) -> bytes:
    module, _, name = path.rpartition('.')
    return f'c{module}\n{name}\n'.encode()


def _storage(elements: int) -> bytes:
    parts = _text('storage'), _global('torch.FloatStorage'), _text('0'), _text('cpu')
    return b'(' + b''.join(parts) + _int(elements) + b'tQ'


def _tensor(elements: int, size: int, stride: int) -> bytes:
    sizes = _int(size) + b'\x85' + _int(stride) + b'\x85'
    return (
        _global('torch._utils._rebuild_tensor_v2') + b'(' + _storage(elements) + b'K\x00' + sizes
        + b'\x89' + _global('collections.OrderedDict') + b')RtR'
    )  # fmt: skip


@case('STACK_GLOBAL in a zip')
def _(path: Path, marker: Path) -> None:
    zip_of(path, pickle.dumps({'x': Call(os.system, f'touch {marker}')}, 4))


@case('STACK_GLOBAL of names from the memo')
def _(path: Path, marker: Path) -> None:
    names = b'\x8c\x05posix\x940\x8c\x06system\x940h\x00h\x01\x93'
    pickled = b'\x80\x04' + names + _text(f'touch {marker}') + b'\x85R.'
    pickletools.dis(pickled, io.StringIO())  # It is a whole pickle.
    zip_of(path, pickled)


@case('INST operation')
def _(path: Path, marker: Path) -> None:
    path.write_bytes(f"(S'touch {marker}'\niposix\nsystem\n.".encode())


@case('OBJ operation')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(b'(', _global('posix.system'), _text(f'touch {marker}'), b'o'))


@case('extension registry')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(b'\x82\x01', _text(str(marker)), b'\x85R'))


@case('persistent id of a module with sources')
def _(path: Path, marker: Path) -> None:
    parts = _text('module'), _global('torch.nn.Module'), _text(str(marker)), _text('source')
    zip_of(path, _pickled(b'(', *parts, b'tQ'))


@case('call of a call')
def _(path: Path, marker: Path) -> None:
    inner = _global('builtins.getattr') + _global('posix.system') + _text('__call__') + b'\x86R'
    zip_of(path, _pickled(inner, _text(f'touch {marker}'), b'\x85R'))


@case('TorchScript archive')
def _(path: Path, marker: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


@case('tar')
def _(path: Path, marker: Path) -> None:
    data = pickle.dumps(Call(os.system, f'touch {marker}'), 2)
    with tarfile.open(path, 'w') as archive:
        for name in ('storages', 'tensors', 'pickle', f'../{marker.name}'):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@case('zip of one file, as torch.hub would unpack it')
def _(path: Path, marker: Path) -> None:
    inner = io.BytesIO()
    torch.save(content(extra=Call(os.system, f'touch {marker}')), inner)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(marker.name, inner.getvalue())


@case('zip with paths that lead out of it')
def _(path: Path, marker: Path) -> None:
    torch.save(content(), path)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(f'archive/../../{marker.name}', b'x')
        archive.writestr(str(marker), b'x')


@case('zip with a second data.pkl')
def _(path: Path, marker: Path) -> None:
    zip_of(path, pickle.dumps({}, 2))
    with zipfile.ZipFile(path, 'a') as archive:
        hostile = pickle.dumps({'x': Call(os.system, f'touch {marker}')}, 2)
        archive.writestr('archive/DATA.PKL', hostile)


@case('zip bomb')
def _(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr('archive/data.pkl', _pickled(_tensor(1 << 24, 1 << 24, 1)))
        with archive.open('archive/data/0', 'w') as record:
            for _ in range(64):
                record.write(bytes(1 << 20))


@case('storage larger than its record')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(_tensor(1 << 24, 1 << 24, 1)), _0=bytes(64))


@case('storage of a petabyte, older format')
def _(path: Path, marker: Path) -> None:
    storage = b'(' + _text('storage') + _global('torch.FloatStorage') + _text('0') + _text('cpu')
    head = io.BytesIO()
    torch.save({}, head, _use_new_zipfile_serialization=False)
    head.seek(0)
    for _ in range(3):  # Magic number, protocol and system.
        for _ in pickletools.genops(head):
            pass
    path.write_bytes(
        head.getvalue()[: head.tell()]
        + _pickled(storage, _int(1 << 48), b'NtQ')
        + pickle.dumps(['0'], 2)
    )


@case('tensor that repeats one number')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(_tensor(1, 1 << 40, 0)), _0=bytes(4))


@case('bytearray of a length')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(_global('__builtin__.bytearray'), _int(1 << 40), b'\x85R'))


@case('tensor of a length')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(_global('torch.FloatTensor'), _int(1 << 40), b'\x85R'))


@case('array of a length')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(_global('numpy.ndarray'), _int(1 << 40), b'\x85\x85R'))


@case('array scalar of a length')
def _(path: Path, marker: Path) -> None:
    dtype = _global('numpy.dtype') + _text(f'V{(1 << 31) - 1}') + b'\x85R'
    zip_of(path, _pickled(_global('numpy.core.multiarray.scalar'), dtype, b'\x85R'))


@case('billion laughs as a key')
def _(path: Path, marker: Path) -> None:
    doubled = b'q\x00h\x00\x86'
    zip_of(path, _pickled(b'}', _text('ha'), doubled * 64, b'K\x01s'))


@case('deeply nested key')
def _(path: Path, marker: Path) -> None:
    zip_of(path, _pickled(b'}', b')', b'\x85' * 2_000_000, b'K\x01s'))


def _config(where: str) -> Callable[[Path, Path], None]:
    def write(path: Path, marker: Path) -> None:
        text = f"x = __import__('os').system('touch {marker}')\nmodel = dict(type='RetinaFace')\n"
        saved = content()
        *folders, key = where.split('.')
        place = saved
        for folder in folders:
            place = place[folder]
        place[key] = text
        torch.save(saved, path)

    return write


for _where in ('meta.cfg', 'meta.config', 'message_hub.runtime_info.cfg'):
    CASES[f'code in {_where}'] = _config(_where)


@case('config text that inherits from a file')
def _(path: Path, marker: Path) -> None:
    base = path.with_suffix('.py')
    base.write_text(f"open({str(marker)!r}, 'w')\n", encoding='utf-8')
    saved = content()
    saved['meta']['config'] = f'_base_ = {str(base)!r}\n'
    torch.save(saved, path)


@case('best checkpoint that is something else')
def _(path: Path, marker: Path) -> None:
    saved = content()
    saved['message_hub']['runtime_info']['best_ckpt'] = str(path.parent)
    torch.save(saved, path)


@case('numbers of checkpoints that are paths')
def _(path: Path, marker: Path) -> None:
    saved = content()
    saved['message_hub']['runtime_info']['keep_ckpt_ids'] = [f'/../../{marker.name}'] * 9
    torch.save(saved, path)


@case('folder')
def _(path: Path, marker: Path) -> None:
    path.mkdir()


def _junk(data: bytes) -> Callable[[Path, Path], None]:
    return lambda path, marker: path.write_bytes(data) and None


for _name, _data in {
    'empty file': b'',
    'HDF5': b'\x89HDF\r\n\x1a\n' + bytes(2000),
    'JSON': b'{"state_dict": {"weight": [1, 2]}}',
    'random bytes': np.random.default_rng(0).bytes(5000),
    'gzip': bytes.fromhex('1f8b08000000000002ff4b4c4a06003d0f7a7d03000000'),
}.items():
    CASES[_name] = _junk(_data)


@case('cut-off zip')
def _(path: Path, marker: Path) -> None:
    torch.save(content(), path)
    path.write_bytes(path.read_bytes()[:-300])
