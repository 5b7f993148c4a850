"""Torch7's binary files of Lua objects (``torch.save``), read without Lua.

Everything in such a file is an object: a 4-byte tag and what belongs to it. Numbers are
little-endian, ``int`` has 4 bytes and ``long`` 8::

    0 nil    1 number: double    2 string: int n, n bytes    5 boolean: int
    3 table: int index; when the index is new, int n and n times a key and a value
    4 torch: int index; when it is new, the strings "V 1" and the class, and then
        a tensor:   int n, long size[n], long stride[n], long offset (from 1), a storage
        a storage:  long n, n numbers
        any other:  a table with its fields
    6, 7, 8 function: compiled Lua, and the values that it has closed over

An index that was seen before means the object that it was first given to. The numbers of storages
and the bytes of functions are passed over.

Source: torch/torch7, File.lua, Tensor.c and Storage.c (generic).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from ...errors import FormatError, UnsafeError
from ..dtypes import BY_TORCH, MAX_DIMENSIONS, Number
from .source import Source

__all__ = ["MAX_DEPTH", "LuaObject", "LuaStorage", "LuaTensor", "read_objects"]

MAX_OBJECTS = 1_000_000  # a ResNeXt-101 has 30,000; most are plain numbers, which are not kept
MAX_KNOWN = 100_000  # tables, objects, tensors and storages; up to 300 bytes each here
MAX_DEPTH = 100  # of objects in objects; a ResNeXt has 23

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN, FUNCTION, LEGACY_FUNCTION, NEW_FUNCTION = range(9)

# The word before "Tensor" and "Storage" -> the type of the numbers; those of a graphics card have
# "Cuda" in front, and floats nothing else.
_PLAIN = {word: kind for word, kind in BY_TORCH.items() if word not in ("BFloat16", "Bool")}
_CARD = {f"Cuda{word}": kind for word, kind in _PLAIN.items() if word != "Float"}
_KINDS = _PLAIN | _CARD | {"Cuda": BY_TORCH["Float"]}


@dataclass(eq=False, slots=True)
class LuaObject:
    """An object of a class that we do not need to know, with its fields once they are read."""

    kind: str
    fields: dict[Any, Any] = field(default_factory=dict)


class LuaStorage(NamedTuple):
    """The place of numbers in the file: their type, the first byte, how many."""

    kind: Number
    start: int
    numel: int


class LuaTensor(NamedTuple):
    """A view of a storage, checked to lie inside of it; an empty tensor has no storage."""

    kind: Number
    storage: LuaStorage | None
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Function(NamedTuple):
    """Compiled Lua of some length, which was passed over."""

    size: int


def read_objects(file: BinaryIO, kept: Collection[str]) -> object:
    """Return the object that a file holds.

    Parameters
    ----------
    file : binary file
    kept : collection of str
        The keys of tables whose plain values (numbers, texts, truth values) are wanted; with other
        keys only what may hold tensors is kept.

    Returns
    -------
    object
        None, float, str (one character for each byte), bool, dict, `LuaObject`, `LuaStorage` or
        `LuaTensor`, nested; or something that stands for a function.

    Raises
    ------
    FormatError
        Cut short, or not such a file.
    UnsafeError
        Built to exhaust memory or time: too deep, too many objects, tensors that reach beyond
        their storage; or something follows the object.
    """
    reader = _Reader(file, kept)
    top = reader.value()
    if left := reader.source.left:
        raise UnsafeError(f"{left:,} bytes follow the network; do not use the file")
    return top


class _Reader:
    """The objects of a file, read once from front to back."""

    def __init__(self, file: BinaryIO, kept: Collection[str]) -> None:
        self.source, self._kept = Source(file), kept
        self._known: dict[int, object] = {}
        self._objects, self._depth = 0, 0

    def value(self) -> object:
        """Return the next object."""
        tag = self.source.number()
        self._objects += 1
        if self._objects > MAX_OBJECTS:
            raise UnsafeError(
                f"the file has more than {MAX_OBJECTS:,} objects; a network has some ten thousand"
            )
        if tag == NIL:
            return None
        if tag == NUMBER:
            return struct.unpack("<d", self.source.take(8))[0]
        if tag == STRING:
            return self.source.string()
        if tag == BOOLEAN:
            return self.source.boolean()
        if tag == FUNCTION:  # has no index
            return self._nested(self._function, 0)
        if tag not in (TABLE, TORCH, LEGACY_FUNCTION, NEW_FUNCTION):
            raise FormatError(
                f"byte {self.source.at - 4:,} should begin an object of Torch7, found the tag "
                f"{tag}; fetch it again"
            )
        index = self.source.number()
        if index in self._known:
            return self._known[index]
        read = {TABLE: self._table, TORCH: self._torch}.get(tag, self._function)
        return self._nested(read, index)

    def _nested(self, read: Callable[[int], object], index: int) -> object:
        """Read what may contain objects, to a bounded depth."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnsafeError(
                f"the file has objects nested deeper than {MAX_DEPTH}; a network has some twenty "
                "levels"
            )
        value = read(index)
        self._depth -= 1
        return value

    def _table(self, index: int) -> dict:
        """Return the entries of a table that may matter."""
        table: dict = {}
        self._know(index, table)
        for _ in range(self.source.count("entries of a table")):
            key, value = self.value(), self.value()
            if key is None or key != key:
                raise UnsafeError(
                    "a table of Lua has nil or NaN as a key, which Lua does not allow; do not use "
                    "the file"
                )
            if type(key) not in (float, str) or (_is_plain(value) and key not in self._kept):
                continue
            if key in table:
                raise UnsafeError(
                    f"a table of Lua has the key {ascii(key)[:40]} twice; do not use the file"
                )
            table[key] = value
        return table

    def _torch(self, index: int) -> object:
        """Return a storage, a tensor, or an object with fields."""
        kind = self.source.string()
        if kind.startswith("V "):
            kind = self.source.string()
        stem = kind.removeprefix("torch.")
        if stem.endswith("Storage") and stem[:-7] in _KINDS:
            return self._know(index, self._storage(_KINDS[stem[:-7]]))
        if stem.endswith("Tensor") and stem[:-6] in _KINDS:
            return self._know(index, self._tensor(_KINDS[stem[:-6]]))
        thing = LuaObject(kind)
        self._know(index, thing)
        fields = self.value()
        if not isinstance(fields, dict):
            raise FormatError(
                f"an object of the class {ascii(kind)[:60]} has no table of fields; save the "
                "network alone"
            )
        thing.fields = fields
        return thing

    def _storage(self, kind: Number) -> LuaStorage:
        """Return where the numbers are, and pass over them."""
        numel = self.source.long_number()
        size = numel * kind.itemsize
        if numel < 0 or size > self.source.left:
            raise FormatError(
                f"a storage should have {numel:,} numbers, but the file ends before; it is cut "
                "short, fetch it again"
            )
        storage = LuaStorage(kind, self.source.at, numel)
        self.source.skip(size)
        return storage

    def _tensor(self, kind: Number) -> LuaTensor:
        """Return a view of a storage, which must lie inside of it."""
        rank = self.source.number()
        if not 0 <= rank <= MAX_DIMENSIONS:
            raise FormatError(f"a tensor has {rank} dimensions; expected at most {MAX_DIMENSIONS}")
        numbers = struct.unpack(f"<{2 * rank + 1}q", self.source.take(16 * rank + 8))
        size, stride, offset = numbers[:rank], numbers[rank:-1], numbers[-1] - 1
        storage = self.value()
        if storage is None or rank == 0:
            if rank or not (storage is None or isinstance(storage, LuaStorage)):
                raise FormatError(
                    f"a tensor of the size {list(size)} has no storage; save the network again"
                )
            return LuaTensor(kind, None, 0, (), ())
        if not isinstance(storage, LuaStorage) or storage.kind != kind:
            raise FormatError(
                "a tensor's numbers are not in a storage of its own type; save the network again"
            )
        if min(size) < 1 or min(stride) < 0 or offset < 0:
            raise UnsafeError(
                f"a tensor has the size {list(size)}, strides {list(stride)} and offset "
                f"{offset + 1}; do not use it"
            )
        if offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) >= storage.numel:
            raise UnsafeError(
                f"a tensor of the size {list(size)!s:.80} reaches beyond its {storage.numel:,} "
                "numbers; do not use it"
            )
        return LuaTensor(kind, storage, offset, size, stride)

    def _function(self, index: int) -> _Function:
        """Pass over Lua's compiled code and the values that it has closed over."""
        size = self.source.count("bytes of a function")
        function = _Function(size)
        self.source.skip(size)
        if index:
            self._know(index, function)
        self.value()
        return function

    def _know(self, index: int, value: object) -> object:
        """Remember an object under its index."""
        if index < 1 or index in self._known or len(self._known) >= MAX_KNOWN:
            raise UnsafeError(
                f"the file has a wrong or repeated number {index} of an object, or too many; do "
                "not use it"
            )
        self._known[index] = value
        return value


def _is_plain(value: object) -> bool:
    """Return whether no object can be reached from here."""
    return value is None or type(value) in (float, str, bool, _Function, LuaStorage)
