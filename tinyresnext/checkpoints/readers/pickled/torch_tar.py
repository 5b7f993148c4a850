"""PyTorch's first format: a tar archive of four files, as `torch.save` wrote it until early 2017.

``pickle`` is the object, in which a number stands for each tensor. ``tensors`` says for each number
the storage, the shape and the strides; ``storages`` has the numbers themselves, and which storages
are parts of others. ``sys_info`` says how the machine writes numbers. All numbers are written with
their lowest byte first. The format is read by ``_legacy_load`` of PyTorch's
``torch/serialization.py`` to this day.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BufferedReader
from typing import BinaryIO

from ....errors import FormatError, UnsafeError
from ....formats.dtypes import MAX_DIMENSIONS
from ....formats.pickle.machine import load
from ....formats.pickle.names import CHECKPOINT
from ....formats.pickle.tensors import STORAGES, Storage, Tensor, rebuilt
from ....formats.pickle.vocabulary import Global, Placeholder
from ....formats.tar import placed
from ....system.checks import is_int
from ....system.files import Part, pieces
from .torch_storages import Contents, Views, bytes_of, check_system

__all__ = ["BEGINNING", "open_tar"]

BEGINNING = b"ustar"  # from byte 257 on
VERSION = 1000
FILES = ("pickle", "tensors", "storages")
FEW = 64  # opcodes; a line of the tables has about 15
MOST = 50_000  # tensors, or storages


def open_tar(file: BinaryIO) -> Contents:
    """Open a checkpoint in a tar archive. Nothing is unpacked to the disk.

    Raises
    ------
    FormatError
        The archive is another one, is cut short, or contradicts itself.
    UnsafeError
        The file asks for something that weights never need. Nothing was run.
    """
    parts = placed(file)
    if missing := [name for name in FILES if name not in parts]:
        there = ", ".join(ascii(name)[:40] for name in [*parts][:4]) or "nothing"
        raise FormatError(
            f"a tar archive without {missing[0]!r}, so not one that torch.save wrote; it has "
            f"{there}; unpack it first"
        )
    if "sys_info" in parts:
        check_system(load(_stream(file, *parts["sys_info"]), CHECKPOINT, max_opcodes=100), VERSION)
    objects: dict[str, object] = {}
    starts = _read_storages(file, parts["storages"], objects)
    _read_tensors(_stream(file, *parts["tensors"]), objects)

    def persistent_load(pid: object) -> object:
        if type(pid) is tuple and len(pid) == 3 and type(pid[0]) is Global:
            return pid[0]  # the class of a module, with its source code, which is not looked at
        if type(pid) is not str or pid not in objects:
            raise UnsafeError("the pickle refers to something that is neither tensor nor storage")
        return objects[pid]

    stream = _stream(file, *parts["pickle"])
    top = load(stream, CHECKPOINT, persistent_load=persistent_load)
    _expect_end(stream, "pickle")
    return Contents(
        "tar",
        top,
        lambda one: starts[one.key],
        lambda one: pieces(file, starts[one.key], bytes_of(one), f"storage {one.key}"),
    )


def _stream(file: BinaryIO, start: int, size: int) -> BufferedReader:
    """Return a file of the archive as a stream."""
    return BufferedReader(Part(file, start, size))


def _read_storages(
    file: BinaryIO, place: tuple[int, int], objects: dict[str, object]
) -> dict[str, int]:
    """Add the storages by their numbers, and return the byte at which each begins."""
    begin, size = place
    stream = _stream(file, begin, size)
    starts: dict[str, int] = {}
    for key, location, kind in _table(stream, "storages", 3):
        if type(location) is not str or type(kind) is not Global or kind not in STORAGES:
            raise UnsafeError("the archive names a storage of unknown type, or without a device")
        numel = _integers(stream, 1)[0]
        if not is_int(numel, 0, (1 << 48) - 1):
            raise UnsafeError(f"storage {key} declares an impossible number of elements")
        storage, at = Storage(key, STORAGES[kind], numel), stream.tell()
        end = at + bytes_of(storage)
        if end > size:
            raise FormatError(
                f"the file is cut short: storage {key} ends at byte {end} of {size} in 'storages'"
            )
        _add(objects, key, storage)
        starts[key] = begin + at
        stream.seek(end)
    views = load(stream, CHECKPOINT)
    _expect_end(stream, "storages")
    if type(views) is not list or len(views) > MOST:
        raise FormatError("the archive has no list of the storages that are parts of others")
    found = Views()
    for entry in views:
        if type(entry) is not tuple or len(entry) != 4 or not all(is_int(n, 0) for n in entry):
            raise FormatError("a part of a storage is not described by four numbers")
        root = objects.get(str(entry[1]))
        if type(root) is not Storage:
            raise FormatError(f"storage {entry[0]} is a part of none that is there")
        view = found.add(root, str(entry[0]), *entry[2:])
        _add(objects, view.key, view)
    return found.placed(starts)


def _read_tensors(stream: BufferedReader, objects: dict[str, object]) -> None:
    """Add the tensors by their numbers."""
    for key, of, kind in _table(stream, "tensors", 3):
        if type(kind) is not Global:
            raise UnsafeError("the archive names a tensor of unknown type")
        dimensions = _integers(stream, 1)[0] & 0xFFFFFFFF  # four bytes, and four without a meaning
        if dimensions > MAX_DIMENSIONS:
            raise UnsafeError(f"a tensor has {dimensions} axes; at most {MAX_DIMENSIONS} are read")
        size, stride = _integers(stream, dimensions), _integers(stream, dimensions)
        offset = _integers(stream, 1)[0]
        storage = objects.get(str(of))
        tensor: Tensor | Placeholder = Placeholder(kind)  # without an axis, a tensor was empty
        if dimensions:
            if type(storage) is not Storage:
                raise FormatError(f"tensor {key} has a storage that is not there")
            tensor = rebuilt((storage, offset, size, stride))
        _add(objects, key, tensor)
    _expect_end(stream, "tensors")


def _table(stream: BufferedReader, name: str, length: int) -> Iterator[tuple]:
    """Yield the entries of a table; each begins with a number, which becomes text."""
    count = load(stream, CHECKPOINT, max_opcodes=4)
    if not is_int(count, 0, MOST):
        raise FormatError(f"{name!r} begins with {ascii(count)[:40]}, not with a count")
    for _ in range(count):
        entry = load(stream, CHECKPOINT, max_opcodes=FEW)
        if type(entry) is not tuple or len(entry) != length or not is_int(entry[0], 0, 1 << 64):
            raise FormatError(f"an entry of {name!r} is not a number and what belongs to it")
        yield (str(entry[0]), *entry[1:])


def _integers(stream: BufferedReader, count: int) -> tuple[int, ...]:
    """Return numbers of eight bytes each."""
    data = stream.read(8 * count)
    if len(data) < 8 * count:
        raise FormatError("the file is cut short in the description of a tensor or a storage")
    return struct.unpack(f"<{count}q", data)


def _add(objects: dict[str, object], key: str, value: object) -> None:
    """Add what a number stands for, once."""
    if key in objects:
        raise UnsafeError(f"the archive describes {ascii(key)[:40]} in two ways")
    objects[key] = value


def _expect_end(stream: BufferedReader, name: str) -> None:
    """Raise `UnsafeError` if a file of the archive goes on."""
    if stream.read(1):
        raise UnsafeError(f"{name!r} continues behind the end of what it describes")
