"""Torch7's binary ``.t7`` files, which hold a whole network as Lua objects, read without Lua.

Everything in such a file is an object: a 4-byte tag and what belongs to it. Numbers are
little-endian, ``int`` has 4 bytes and ``long`` 8::

    0 nil    1 number: double    2 string: int n, n bytes    5 boolean: int
    3 table: int index; when the index is new, int n and n times a key and a value
    4 torch: int index; when it is new, the strings "V 1" and the class, and then
        a tensor:   int n, long size[n], long stride[n], long offset (from 1), a storage
        a storage:  long n, n numbers
        any other:  a table with its fields
    6, 7, 8 function: compiled Lua, and the values that it has closed over

An index seen before means the object that it was first given to. Here, numbers of storages are
passed over (of gradients they are never read), functions are passed over as the bytes that they
are, and what remains is a tree of tables. The tensors ``weight``, ``bias``, ``running_mean`` and
``running_var`` of its modules are named by the way from the root, with children counted from 0:
``4.0.0.0.weight``.

Source: torch/torch7, File.lua, Tensor.c and Storage.c (generic).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np

from ...errors import FormatError, UnsafeError
from .checkpoint import (
    MAX_DIMENSIONS,
    MAX_TENSORS,
    TYPES,
    Check,
    Checkpoint,
    Stored,
    finish,
    viewed,
)

__all__ = ["read"]

MAX_OBJECTS = 1_000_000  # a ResNeXt-101 has 30,000; most are plain numbers, which are not kept
MAX_KNOWN = 100_000  # tables, objects, tensors and storages; up to 300 bytes each here
MAX_DEPTH = 100  # of objects in objects; a ResNeXt has 23
MAX_MODULES = 50_000  # met on the way through the tree, where one that is shared counts each time
MAX_TREE = 40  # of modules in modules; a ResNeXt has 7
MAX_TEXT = 8 << 20  # bytes of all strings together, of which few are kept

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN, FUNCTION, LEGACY_FUNCTION, NEW_FUNCTION = range(9)
PARAMETERS = ("weight", "bias", "running_mean", "running_var")
_REPLICAS = ("nn.DataParallelTable", "nn.DataParallel")  # their first child is the network

# What stands before "Tensor" and "Storage" -> the type of the numbers; those of the graphics card
# are as on the processor.
_KINDS = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
}
_KINDS |= {"Byte": "U8"}
_KINDS |= {f"Cuda{name}": kind for name, kind in _KINDS.items() if name != "Float"} | {
    "Cuda": "F32"
}


@dataclass(eq=False, slots=True)
class _Object:
    """An object of a class that we do not need to know, with its fields once they are read."""

    kind: str
    fields: dict = field(default_factory=dict)


class _Storage(NamedTuple):
    """Where numbers are: their type, the first byte, how many."""

    kind: str
    start: int
    numel: int


class _Tensor(NamedTuple):
    """A storage seen through offset, size and stride, checked to lie inside of it; none for an empty tensor."""

    kind: str
    storage: _Storage | None
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Function(NamedTuple):
    """Compiled Lua of some length, which was passed over."""

    size: int


def read(file: BinaryIO, check: Check | None = None) -> Checkpoint:
    """Read an open file, whatever its position; ``check`` as in `container.opened`.

    Raises
    ------
    FormatError
        Cut short, not such a file, or without a network.
    IntegrityError
        A double does not fit into float32.
    UnsafeError
        Made to fill the memory or the time: too deep, too many objects, tensors that reach beyond
        their storage.
    """
    reader = _Reader(file)
    top = reader.value()
    if reader.at != reader.size:
        raise UnsafeError(
            f"{reader.size - reader.at:,} bytes follow the network; do not use the file"
        )
    wrapper, root, others = _root(top)
    tensors: dict[str, Stored] = {}
    for path, module in _modules(root):
        if len(tensors) > MAX_TENSORS:
            break  # `finish` refuses
        for name in PARAMETERS:
            value = module.fields.get(name)
            if isinstance(value, _Tensor) and value.storage is not None:
                place = value.kind, value.storage.start, value.offset, value.size, value.stride
                tensors[f"{path}.{name}" if path else name] = viewed(file, *place, "a storage")
            elif value is not None and not isinstance(value, _Tensor):
                raise FormatError(
                    f"{name} of {path or 'the root'} ({module.kind}) is not a tensor; save the network again"
                )
        if isinstance(module.fields.get("running_std"), _Tensor):
            raise FormatError(
                f"{path or 'the root'} keeps running_std, as Torch7 did before 2016; load and save it with Torch7"
            )
    return finish(file, tensors, "torch7", check, wrapper=wrapper, others=others)


def _root(top: object) -> tuple[str, _Object, tuple[str, ...]]:
    """The network: the object itself or the one in a table, under which key, and what else there is."""
    wrapper, others = "", ()
    if isinstance(top, dict):
        found = [
            key for key, value in top.items() if isinstance(value, _Object) and type(key) is str
        ]
        if not found:
            keys = ", ".join(ascii(key)[:40] for key in list(top)[:8])
            raise FormatError(
                f"a table of Torch7 without a network; its keys are {keys or 'none'}; give the model's own file"
            )
        wrapper = "model" if "model" in found else found[0]
        top, others = top[wrapper], tuple(key for key in found if key != wrapper)
    if not isinstance(top, _Object):
        raise FormatError("a file of Torch7, but not of a network; save the model with torch.save")
    for _ in range(MAX_DEPTH):
        if top.kind not in _REPLICAS:
            break
        children = _children(top, "the root")
        if not children:
            raise FormatError(f"{top.kind} has no network in it; save its first replica")
        top = children[0]
    return wrapper, top, others


def _modules(root: _Object) -> Iterator[tuple[str, _Object]]:
    """Every module of the tree in order, with the way to it."""
    waiting, count = [("", root)], 0
    while waiting:
        path, module = waiting.pop()
        yield path, module
        children = _children(module, path or "the root")
        count += len(children)
        if count > MAX_MODULES or path.count(".") > MAX_TREE:
            raise UnsafeError(
                f"the network has more than {MAX_MODULES:,} modules, or some contain themselves; do not use the file"
            )
        waiting += [
            (f"{path}.{i}" if path else str(i), child)
            for i, child in reversed(list(enumerate(children)))
        ]


def _children(module: _Object, where: str) -> list[_Object]:
    """What a container contains: a table with the keys 1, 2, 3 ..."""
    table = module.fields.get("modules")
    if table is None:
        return []
    children = (
        [table.get(float(i + 1)) for i in range(len(table))] if isinstance(table, dict) else [None]
    )
    if not all(isinstance(child, _Object) for child in children):
        raise FormatError(
            f"{where} ({ascii(module.kind)[:40]}) has children that are not modules numbered from 1; save it again"
        )
    return children


class _Reader:
    """Goes through a file once, object by object."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size = file, os.fstat(file.fileno()).st_size
        self.at = 0
        self._known: dict[int, object] = {}
        self._objects, self._depth, self._text = 0, 0, 0
        file.seek(0)

    def value(self) -> object:
        """The next object: None, float, bytes as str, bool, dict, `_Object`, `_Tensor`, `_Storage` or `_Function`."""
        tag = self._int()
        self._objects += 1
        if self._objects > MAX_OBJECTS:
            raise UnsafeError(
                f"the file has more than {MAX_OBJECTS:,} objects; a network has some ten thousand"
            )
        if tag == NIL:
            return None
        if tag == NUMBER:
            return struct.unpack("<d", self._take(8))[0]
        if tag == STRING:
            return self._string()
        if tag == BOOLEAN:
            return self._boolean()
        if tag == FUNCTION:  # has no index
            return self._nested(self._function, 0)
        if tag not in (TABLE, TORCH, LEGACY_FUNCTION, NEW_FUNCTION):
            raise FormatError(
                f"byte {self.at - 4:,} should begin an object of Torch7, found the tag {tag}; fetch it again"
            )
        index = self._int()
        if index in self._known:
            return self._known[index]
        return self._nested(
            {TABLE: self._table, TORCH: self._torch}.get(tag, self._function), index
        )

    def _nested(self, read: Callable[[int], object], index: int) -> object:
        """Read what may contain objects, to a bounded depth."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnsafeError(
                f"the file has objects nested deeper than {MAX_DEPTH}; a network has some twenty levels"
            )
        value = read(index)
        self._depth -= 1
        return value

    def _table(self, index: int) -> dict:
        """The entries of a table that may matter: plain values are dropped where no parameter should be."""
        table: dict = {}
        self._know(index, table)
        for _ in range(self._count("entries of a table")):
            key, value = self.value(), self.value()
            if key is None or key != key:
                raise UnsafeError(
                    "a table of Lua has nil or NaN as a key, which Lua does not allow; do not use the file"
                )
            if type(key) not in (float, str) or (_is_plain(value) and key not in PARAMETERS):
                continue
            if key in table:
                raise UnsafeError(
                    f"a table of Lua has the key {ascii(key)[:40]} twice; do not use the file"
                )
            table[key] = value
        return table

    def _torch(self, index: int) -> object:
        """A storage, a tensor, or an object with fields."""
        kind = self._string()
        if kind.startswith("V "):
            kind = self._string()
        stem = kind.removeprefix("torch.")
        if stem.endswith("Storage") and stem[:-7] in _KINDS:
            return self._know(index, self._storage(_KINDS[stem[:-7]]))
        if stem.endswith("Tensor") and stem[:-6] in _KINDS:
            return self._know(index, self._tensor(_KINDS[stem[:-6]]))
        thing = _Object(kind)
        self._know(index, thing)
        fields = self.value()
        if not isinstance(fields, dict):
            raise FormatError(
                f"an object of the class {ascii(kind)[:60]} has no table of fields; save the network alone"
            )
        thing.fields = fields
        return thing

    def _storage(self, kind: str) -> _Storage:
        """Where the numbers are; they are passed over."""
        numel = self._long()
        size = numel * np.dtype(TYPES[kind]).itemsize
        if numel < 0 or size > self.size - self.at:
            raise FormatError(
                f"a storage should have {numel:,} numbers, but the file ends before; it is cut short, fetch it again"
            )
        storage = _Storage(kind, self.at, numel)
        self._skip(size)
        return storage

    def _tensor(self, kind: str) -> _Tensor:
        """A view of a storage, which must lie inside."""
        rank = self._int()
        if not 0 <= rank <= MAX_DIMENSIONS:
            raise FormatError(f"a tensor has {rank} dimensions; expected at most {MAX_DIMENSIONS}")
        numbers = struct.unpack(f"<{2 * rank + 1}q", self._take(16 * rank + 8))
        size, stride, offset = numbers[:rank], numbers[rank:-1], numbers[-1] - 1
        storage = self.value()
        if storage is None or rank == 0:
            if rank or not (storage is None or isinstance(storage, _Storage)):
                raise FormatError(
                    f"a tensor of the size {list(size)} has no storage; save the network again"
                )
            return _Tensor(kind, None, 0, (), ())
        if not isinstance(storage, _Storage) or storage.kind != kind:
            raise FormatError(
                "a tensor's numbers are not in a storage of its own type; save the network again"
            )
        if min(size) < 1 or min(stride) < 0 or offset < 0:
            raise UnsafeError(
                f"a tensor has the size {list(size)}, strides {list(stride)} and offset {offset + 1}; do not use it"
            )
        if offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) >= storage.numel:
            raise UnsafeError(
                f"a tensor of the size {list(size)!s:.80} reaches beyond its {storage.numel:,} numbers; do not use it"
            )
        return _Tensor(kind, storage, offset, size, stride)

    def _function(self, index: int) -> _Function:
        """Lua's compiled code, passed over, and the values that it has closed over, which are dropped."""
        size = self._count("bytes of a function")
        function = _Function(size)
        self._skip(size)
        if index:
            self._know(index, function)
        self.value()
        return function

    def _know(self, index: int, value: object) -> object:
        """Remember an object under its index."""
        if index < 1 or index in self._known or len(self._known) >= MAX_KNOWN:
            raise UnsafeError(
                f"the file has a wrong or repeated number {index} of an object, or too many; do not use it"
            )
        self._known[index] = value
        return value

    def _string(self) -> str:
        """Bytes, each as the character of that number: Lua does not say what they mean."""
        size = self._count("bytes of a string")
        self._text += size
        if self._text > MAX_TEXT:
            raise UnsafeError(
                f"the file has more than {MAX_TEXT:,} bytes of text; a network has some kilobytes"
            )
        return self._take(size).decode("latin-1")

    def _boolean(self) -> bool:
        """0 or 1."""
        value = self._int()
        if value not in (0, 1):
            raise FormatError(f"a truth value is {value}; expected 0 or 1; fetch the file again")
        return value == 1

    def _count(self, what: str) -> int:
        """How many of something follow, which the rest of the file must have room for."""
        count = self._int()
        if not 0 <= count <= self.size - self.at:
            raise FormatError(
                f"there should be {count:,} {what} in the last {self.size - self.at:,} bytes; fetch the file again"
            )
        return count

    def _int(self) -> int:
        return struct.unpack("<i", self._take(4))[0]

    def _long(self) -> int:
        return struct.unpack("<q", self._take(8))[0]

    def _take(self, size: int) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        if len(data) != size:
            raise FormatError(
                f"the file is cut short at byte {self.at + len(data):,}; fetch it again"
            )
        self.at += size
        return data

    def _skip(self, size: int) -> None:
        """Go on behind the next bytes."""
        self.at += size
        self._file.seek(self.at)


def _is_plain(value: object) -> bool:
    """Whether nothing can be reached from here."""
    return value is None or type(value) in (float, str, bool, _Function, _Storage)
