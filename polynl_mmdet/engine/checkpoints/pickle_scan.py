"""What a pickle would build, found out without building anything.

PyTorch's ``weights_only`` unpickler runs no code of a file, but a small file can still ask it for
any amount of memory or time: ``bytearray(10**12)``, a tensor larger than the file, a tuple of
tuples that repeats one value 2**60 times and is then hashed. Here a pickle's operations move
stand-ins over a stack, so that what it calls, and with which sizes, is known before it is loaded.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import torch

from polynl_mmdet.errors import in_one_line

MOST_VALUES = 10_000_000  # That a pickle may stand for, each counted as often as it is repeated.
MOST_NESTED = 500  # Values one inside the other; comparing or hashing them goes as deep.
MOST_EXPANDED = 1 << 26  # Elements of a tensor that repeats its storage (a stride of 0).

_MULTIARRAY = ('numpy.core.multiarray', 'numpy._core.multiarray')


class Refused(pickle.UnpicklingError):
    """A pickle asks for something no checkpoint needs; the message names it, in one short line.

    Args:
        wanted (str): What it asks for, as the file names it: of any length, with any characters.
    """

    def __init__(self, wanted: str) -> None:
        super().__init__(in_one_line(wanted))


class Name(NamedTuple):
    """What a pickle refers to by its module and name."""

    path: str


class Result(NamedTuple):
    """What a call of that name gives."""

    path: str


class Storage(NamedTuple):
    """Memory of a tensor: its record in the file, elements and bytes."""

    key: str
    elements: int
    nbytes: int


@dataclass
class Node:
    """A value.

    Attributes:
        value (Any): A Name, Result, Storage, str, number or tuple of Nodes; None: anything else.
        weight (int): How many values it stands for, those inside counted as often as they appear.
        depth (int): How many values lie one inside the other.
    """

    value: Any = None
    weight: int = 1
    depth: int = 1


@dataclass
class Scan:
    """What one pickle asks for.

    Attributes:
        result (Node): The value it gives.
        storages (dict[str, int]): Bytes wanted of each record of the file, by its key.
    """

    result: Node
    storages: dict[str, int] = field(default_factory=dict)


def scan(stream: BinaryIO) -> Scan:
    """Follow one pickle to its end.

    Args:
        stream (BinaryIO): At the pickle's first byte; afterwards right behind its last one.

    Returns:
        Scan: What it asks for.

    Raises:
        Refused: It calls what is not on the list here, with arguments that could take any amount
            of memory, or repeats values without bound.
        EOFError, ValueError, IndexError, KeyError: It is no whole pickle.
    """
    machine = _Machine()
    start = stream.tell()
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == 'STOP':
            return Scan(machine.stack.pop(), machine.storages)
        step = _STEPS.get(operation.name)
        if step is None:
            stream.seek(start)
            names = sorted(set(named_globals(stream)))
            raise Refused(', '.join(names) or f'the pickle operation {operation.name}')
        step(machine, argument)
    raise EOFError('a pickle without an end')


def named_globals(stream: BinaryIO) -> Iterator[str]:
    """Yield every ``module.name`` that a pickle refers to, of any protocol."""
    strings: list[str] = []
    try:
        for operation, value, _ in pickletools.genops(stream):
            if operation.name in ('GLOBAL', 'INST'):
                yield _dotted(value)
            elif 'UNICODE' in operation.name:
                strings.append(value)
            elif operation.name == 'STACK_GLOBAL' and len(strings) > 1:
                yield '.'.join(strings[-2:])
    except ValueError:
        return  # No pickle from here on.


def _dotted(argument: str) -> str:
    """``module.name`` of a GLOBAL, modules that Python 3 renamed by their new names."""
    module, _, name = argument.partition(' ')
    return f'{IMPORT_MAPPING.get(module, module)}.{name}'


class _Machine:
    """The stack, the memo and what was seen."""

    def __init__(self) -> None:
        self.stack: list[Node] = []
        self.marks: list[list[Node]] = []
        self.memo: dict[int, Node] = {}
        self.storages: dict[str, int] = {}

    def push(self, value: Any = None) -> None:
        self.stack.append(Node(value))

    def take(self, count: int) -> list[Node]:
        """The topmost values, removed."""
        if count > len(self.stack):
            raise IndexError('a pickle that takes more than there is')
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def since_mark(self) -> list[Node]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def make_tuple(self, items: list[Node]) -> None:
        self.stack.append(Node(tuple(items), *self.measure(items)))

    def grow(self, items: list[Node]) -> None:
        """Items go into the list, dict or object that is now on top."""
        top = self.stack[-1]
        weight, depth = self.measure(items)
        top.weight, top.depth = top.weight + weight, max(top.depth, depth)
        self.check(top.weight, top.depth)

    def measure(self, items: list[Node]) -> tuple[int, int]:
        """Weight and depth of something that holds the items."""
        weight = 1 + sum(item.weight for item in items)
        depth = 1 + max((item.depth for item in items), default=0)
        self.check(weight, depth)
        return weight, depth

    def check(self, weight: int, depth: int) -> None:
        if weight > MOST_VALUES:
            raise Refused(f'more than {MOST_VALUES} values, the same ones over and over')
        if depth > MOST_NESTED:
            raise Refused(f'more than {MOST_NESTED} values one inside the other')

    def refer(self) -> None:
        """A persistent id: the memory of a tensor."""
        parts = self.take(1)[0].value
        values = [part.value for part in parts] if isinstance(parts, tuple) else []
        if len(values) not in (5, 6) or values[0] != 'storage':
            raise Refused('a persistent id that is not a storage')
        kind, key, elements = values[1], values[2], values[4]
        if not isinstance(kind, Name) or not isinstance(elements, int) or elements < 0:
            raise Refused('a storage without a type or a size')
        nbytes = elements * _element_size(kind.path)
        key = str(key)
        self.storages[key] = max(nbytes, self.storages.get(key, 0))
        self.push(Storage(key, elements, nbytes))

    def call(self) -> None:
        function, arguments = self.take(2)
        if not isinstance(arguments.value, tuple):
            raise Refused('a call without a tuple of arguments')
        _check_call(function, list(arguments.value))
        self.stack.append(Node(Result(function.value.path), arguments.weight, arguments.depth))


def _element_size(path: str) -> int:
    """Bytes of an element of ``torch.FloatStorage`` and its like."""
    name = path.rpartition('.')[2]
    if not name.endswith('Storage') or not path.startswith('torch.'):
        raise Refused(path)
    if name in ('UntypedStorage', 'TypedStorage'):
        return 1
    dtype = getattr(getattr(torch, name, None), 'dtype', None)
    if not isinstance(dtype, torch.dtype):
        raise Refused(path)
    return dtype.itemsize


def _check_call(function: Node, arguments: list[Node]) -> None:
    if not isinstance(function.value, Name):
        raise Refused('a call of something that is not named')
    path = function.value.path
    if path not in _CALLS:
        raise Refused(path)
    _CALLS[path](path, arguments)


def _anything(path: str, arguments: list[Node]) -> None:
    """The call's cost is in proportion to its arguments."""


def _of_text(path: str, arguments: list[Node]) -> None:
    """A ``bytearray`` of bytes, which pickles write as encoded text, not of a length."""
    if arguments and arguments[0].value != Result('_codecs.encode'):
        raise Refused(f'{path} of a length')


def _empty_array(path: str, arguments: list[Node]) -> None:
    """Pickled arrays start empty; their state brings shape and content."""
    shape = arguments[1].value if len(arguments) == 3 else None
    if not isinstance(shape, tuple) or [node.value for node in shape] != [0]:
        raise Refused(f'{path} of an array that is not empty')


def _with_content(path: str, arguments: list[Node]) -> None:
    if len(arguments) != 2:
        raise Refused(f'{path} without content')


def _tensor(path: str, arguments: list[Node]) -> None:
    """A tensor may be as large as its storage; one that repeats it has a bound of its own."""
    storage, size = arguments[0].value, arguments[2].value
    if not isinstance(storage, Storage) or not isinstance(size, tuple):
        raise Refused(f'{path} without a storage')
    sizes = [node.value for node in size]
    if not all(isinstance(n, int) and n >= 0 for n in sizes):
        raise Refused(f'{path} of the size {sizes}')
    if math.prod(sizes) > max(storage.elements, MOST_EXPANDED):
        raise Refused(f'{path} of {math.prod(sizes)} elements over {storage.elements}')


def _nested_call(path: str, arguments: list[Node]) -> None:
    inner = arguments[2].value
    if not isinstance(inner, tuple):
        raise Refused(path)
    _check_call(arguments[0], list(inner))


# What checkpoints of tensors, plain containers, arrays and HistoryBuffers call.
_CALLS: dict[str, Callable[[str, list[Node]], None]] = {
    'collections.OrderedDict': _anything,
    'collections.Counter': _anything,
    'builtins.set': _anything,
    'builtins.complex': _anything,
    'builtins.bytearray': _of_text,
    'builtins.getattr': _anything,  # A stand-in serves HistoryBuffer's statistics alone.
    '_codecs.encode': _anything,
    'mmengine.logging.history_buffer.HistoryBuffer': _anything,
    'numpy.dtype': _anything,
    **{f'{module}._reconstruct': _empty_array for module in _MULTIARRAY},
    **{f'{module}.scalar': _with_content for module in _MULTIARRAY},
    'torch.Size': _anything,
    'torch.device': _anything,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor,
    'torch._utils._rebuild_parameter': _anything,
    'torch._utils._rebuild_parameter_with_state': _anything,
    'torch._tensor._rebuild_from_type_v2': _nested_call,
}

# The operations that torch's weights_only unpickler knows.
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    'PROTO': lambda m, _: None,
    'MARK': lambda m, _: m.mark(),
    'GLOBAL': lambda m, arg: m.push(Name(_dotted(arg))),
    'BINPERSID': lambda m, _: m.refer(),
    'REDUCE': lambda m, _: m.call(),
    'NEWOBJ': lambda m, _: m.call(),
    'BUILD': lambda m, _: m.grow(m.take(1)),
    'APPEND': lambda m, _: m.grow(m.take(1)),
    'APPENDS': lambda m, _: m.grow(m.since_mark()),
    'SETITEM': lambda m, _: m.grow(m.take(2)),
    'SETITEMS': lambda m, _: m.grow(m.since_mark()),
    'TUPLE': lambda m, _: m.make_tuple(m.since_mark()),
    'TUPLE1': lambda m, _: m.make_tuple(m.take(1)),
    'TUPLE2': lambda m, _: m.make_tuple(m.take(2)),
    'TUPLE3': lambda m, _: m.make_tuple(m.take(3)),
    'EMPTY_TUPLE': lambda m, _: m.push(()),
    'BINUNICODE': lambda m, arg: m.push(arg),
    'SHORT_BINSTRING': lambda m, arg: m.push(arg),
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1'), lambda m, arg: m.push(arg)),
    **dict.fromkeys(('EMPTY_LIST', 'EMPTY_DICT', 'EMPTY_SET', 'NONE'), lambda m, _: m.push()),
    **dict.fromkeys(('NEWTRUE', 'NEWFALSE', 'BINFLOAT'), lambda m, _: m.push()),
    **dict.fromkeys(('BINGET', 'LONG_BINGET'), lambda m, arg: m.stack.append(m.memo[arg])),
    **dict.fromkeys(('BINPUT', 'LONG_BINPUT'), lambda m, arg: m.memo.__setitem__(arg, m.stack[-1])),
}
