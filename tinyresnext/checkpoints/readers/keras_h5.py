"""Weights as Keras keeps them in HDF5 files, found with our own small reader and not with the HDF5 library.

Keras writes a group for each layer, and lists in attributes what belongs to it::

    /  or  /model_weights        attribute layer_names: which groups, in order
      conv1_conv/                attribute weight_names: conv1_conv/kernel:0, conv1_conv/bias:0
        conv1_conv/kernel:0      a dataset, in Keras' own orientation

A list that is too long for one attribute is cut into ``layer_names0``, ``layer_names1`` and so on.
The texts have a fixed size, or, when a newer h5py has written them, lie in heaps that all
attributes share (``GCOL``). Whatever else such a file may have (optimiser, training configuration
as JSON, which is never looked at) is left where it is.

Source: The HDF Group, HDF5 File Format Specification, versions 0 of the superblock and 1 of the
object header; the layout of Keras' ``hdf5_format``.
"""

from __future__ import annotations

import os
import struct
from functools import partial
from math import prod
from typing import BinaryIO, NamedTuple

from ...errors import FormatError, UnsafeError
from ...formats.hdf5 import (
    AGAIN,
    FLOAT16,
    FLOAT32,
    SUPERBLOCK,
    SUPERBLOCK_SIZE,
    Group,
    Walker,
    unpack,
)
from ...system.files import pieces
from .checkpoint import (
    MAX_DIMENSIONS,
    MAX_NAME,
    MAX_TENSORS,
    Check,
    Checkpoint,
    Stored,
    checked_name,
    finish,
)

__all__ = ["read"]

OLDEST = "open it with h5py and write it again with libver='earliest' and without compression"
MOST_HEADER = 1 << 20  # bytes of an object header; the root's has the list of all layers
MOST_DEPTH = 8  # of groups in groups
FLOAT64 = struct.pack("<4BIHH4BI4x", 0x11, 0x20, 63, 0, 8, 0, 64, 52, 11, 0, 52, 1023)
_KINDS = {FLOAT16: ("F16", 2), FLOAT32: ("F32", 4), FLOAT64: ("F64", 8)}
_CLASSES = (
    "integers",
    "floats",
    "times",
    "text",
    "bits",
    "opaque",
    "compound",
    "references",
    "enumerated",
    "of varying length",
)

NIL, DATASPACE, DATATYPE, FILL, LAYOUT, ATTRIBUTE, CONTINUATION, SYMBOLS = (
    0x00,
    0x01,
    0x03,
    0x05,
    0x08,
    0x0C,
    0x10,
    0x11,
)
HARMLESS = (
    NIL,
    0x04,
    FILL,
    0x0D,
    0x0E,
    CONTINUATION,
    0x12,
)  # values for what was not written, a comment, dates
ELSEWHERE = {
    0x02: "links",
    0x06: "links",
    0x07: "its values in other files",
    0x0A: "links",
    0x0B: "filters",
}


class _Attribute(NamedTuple):
    """Type, shape and bytes of an attribute."""

    datatype: bytes
    shape: tuple[int, ...]
    value: memoryview


class _Array(NamedTuple):
    """Where the values of a dataset are."""

    datatype: bytes
    shape: tuple[int, ...]
    offset: int
    size: int


def read(file: BinaryIO, check: Check | None = None) -> Checkpoint:
    """Read an open file, whatever its position; ``check`` as in `container.opened`.

    Raises
    ------
    FormatError
        Cut short, not such a file, or written in a form that is not understood; the message says
        how to rewrite it.
    IntegrityError
        A double does not fit into float32.
    UnsafeError
        Something lies outside the file or across something else, is a link, in pieces, filtered or
        in other files.
    """
    keras = _Keras(file)
    top, wrapper, others = _top(keras)
    stored: dict[str, Stored] = {}
    layers = keras.names(top, "layer_names")
    if len(set(layers)) != len(layers):
        raise FormatError("the list of layers has a name twice; save the model again")
    for layer in layers:
        place = (*top, layer)
        for name in keras.names(place, "weight_names"):
            if checked_name(name) in stored:
                raise FormatError(
                    f"two layers have a weight {name}; give the layers different names and save the model again"
                )
            stored[name] = keras.stored((*place, *name.split("/")), name)
            if len(stored) > MAX_TENSORS:
                raise UnsafeError(f"the file has more than {MAX_TENSORS:,} tensors; do not use it")
    return finish(file, stored, "keras", check, wrapper=wrapper, others=others)


def _top(keras: _Keras) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """The group with the list of layers; under which key it is, and which others there are."""
    if keras.has((), "layer_names"):
        return (), "", ()
    if "spec" in keras.group(()).attributes:
        raise FormatError("an HDF5 file of tinyresnext; open it as a model instead")
    members = keras.members(())
    if "model_weights" in members and keras.has(("model_weights",), "layer_names"):
        return (
            ("model_weights",),
            "model_weights",
            tuple(name for name in members if name == "optimizer_weights"),
        )
    newer = "_layer_checkpoint_dependencies" in members or "layers" in members
    what = (
        "in the form of Keras 3's .weights.h5; save the model as .h5"
        if newer
        else "without Keras' list of layers"
    )
    raise FormatError(
        f"an HDF5 file {what}; a model file of tinyresnext is opened as a model instead"
    )


class _Opened(NamedTuple):
    """A group whose header has been read."""

    attributes: dict[str, _Attribute]
    group: Group


class _Keras:
    """A file, and what has been read of it: every group and heap once, because no byte may belong to two."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._walker = Walker(file, "Keras")
        self._groups: dict[tuple[str, ...], _Opened] = {}
        self._members: dict[tuple[str, ...], dict[str, int]] = {}
        self._heaps: dict[int, dict[int, memoryview]] = {}
        self._groups[()] = self._opened(self._root(), "/")

    def _root(self) -> int:
        """The address of the root, from the superblock."""
        self._file.seek(0)
        head = self._file.read(SUPERBLOCK_SIZE)
        if len(head) < SUPERBLOCK_SIZE or head[:8] != SUPERBLOCK[:8]:
            raise FormatError(f"not an HDF5 file, or its beginning is cut off; {AGAIN}")
        if head[: len(SUPERBLOCK)] != SUPERBLOCK:
            raise FormatError(
                f"an HDF5 file that does not begin as Keras' do (superblock of version {head[8]}); {OLDEST}"
            )
        end, driver, _, address, cached, zero = struct.unpack_from("<QqQQII", head, len(SUPERBLOCK))
        size = os.fstat(self._file.fileno()).st_size
        if end != size:
            raise FormatError(
                f"the file has {size:,} bytes, and its beginning says {end:,}; {AGAIN}"
            )
        if driver != -1 or cached > 1 or zero:
            raise FormatError(f"an HDF5 file whose root is in an unusual form; {OLDEST}")
        self._walker.claim(0, SUPERBLOCK_SIZE, "the superblock")
        return address

    def group(self, path: tuple[str, ...]) -> _Opened:
        """The group at a path."""
        if path not in self._groups:
            self._groups[path] = self._opened(self._address(path), _shown(path))
        return self._groups[path]

    def members(self, path: tuple[str, ...]) -> dict[str, int]:
        """Names and addresses of what a group contains."""
        if path not in self._members:
            found = self._walker.members(self.group(path).group, _shown(path))
            self._members[path] = {name.decode("latin-1"): address for name, address in found}
        return self._members[path]

    def has(self, path: tuple[str, ...], name: str) -> bool:
        """Whether a group has a list of that name, whole or in parts."""
        return not {name, f"{name}0"}.isdisjoint(self.group(path).attributes)

    def names(self, path: tuple[str, ...], name: str) -> list[str]:
        """A list of texts in a group's attributes, whole or in parts."""
        attributes = self.group(path).attributes
        parts = [name] if name in attributes else []
        while parts[:1] != [name] and f"{name}{len(parts)}" in attributes:
            parts.append(f"{name}{len(parts)}")
        if not parts:
            raise FormatError(
                f"{_shown(path)} has no attribute {name}, with which Keras lists what it has; save the model again"
            )
        return [
            text
            for part in parts
            for text in self._texts(attributes[part], f"{part} of {_shown(path)}")
        ]

    def stored(self, path: tuple[str, ...], name: str) -> Stored:
        """The dataset at a path."""
        array = _array(self._messages(self._address(path), name), name)
        if array.datatype not in _KINDS:
            number = array.datatype[0] & 15 if array.datatype else 15
            kind = _CLASSES[number] if number < len(_CLASSES) else "of an unknown kind"
            raise FormatError(
                f"{name} has values that are {kind}, or not little-endian; expected floats of 2, 4 or 8 bytes"
            )
        kind, width = _KINDS[array.datatype]
        if prod(array.shape) * width != array.size:
            raise FormatError(
                f"{name} of shape {array.shape!s:.80} has {array.size:,} bytes of values; {AGAIN}"
            )
        if array.size:
            self._walker.claim(array.offset, array.size, name)
        return Stored(
            kind,
            array.shape,
            prod(array.shape),
            partial(pieces, self._file, array.offset, array.size, name),
        )

    def _address(self, path: tuple[str, ...]) -> int:
        """Where the header of what is at a path begins."""
        if len(path) > MOST_DEPTH:
            raise FormatError(f"{_shown(path)} is too deep; expected at most {MOST_DEPTH} levels")
        members = self.members(path[:-1])
        if path[-1] not in members:
            raise FormatError(f"{_shown(path)} is listed and not there; save the model again")
        return members[path[-1]]

    def _opened(self, address: int, where: str) -> _Opened:
        """Read the header of a group."""
        attributes: dict[str, _Attribute] = {}
        messages = self._messages(address, where, attributes)
        if set(messages) != {SYMBOLS}:
            raise FormatError(f"{where} is not a group of the oldest form; {OLDEST}")
        return _Opened(attributes, Group({}, *unpack("<QQ", messages[SYMBOLS], where)))

    def _messages(
        self, address: int, where: str, attributes: dict[str, _Attribute] | None = None
    ) -> dict[int, memoryview]:
        """The messages of an object header that say what it is, by type; attributes go where they are wanted."""
        found: dict[int, memoryview] = {}
        for kind, flags, body in self._walker.messages(address, where, MOST_HEADER):
            if kind in ELSEWHERE:
                raise UnsafeError(
                    f"{where} may have {ELSEWHERE[kind]}, which is not read; {OLDEST}"
                )
            if flags & ~1 or kind in found:
                raise FormatError(
                    f"{where} has a message of type {kind} that is shared or repeated; {OLDEST}"
                )
            if kind == ATTRIBUTE:
                name, attribute = _attribute(body, where)
                if (
                    attributes is not None
                    and attributes.setdefault(name, attribute) is not attribute
                ):
                    raise FormatError(
                        f"{where} has two attributes {ascii(name)[:80]}; save the model again"
                    )
            elif kind in (DATASPACE, DATATYPE, LAYOUT, SYMBOLS):
                found[kind] = body
            elif kind not in HARMLESS:
                raise FormatError(f"{where} has a message of the unknown type {kind}; {OLDEST}")
        return found

    def _texts(self, attribute: _Attribute, where: str) -> list[str]:
        """The texts of an attribute; an empty list has any type."""
        count = prod(attribute.shape)
        if len(attribute.shape) != 1 or count > MAX_TENSORS:
            raise FormatError(
                f"{where} is not a list of up to {MAX_TENSORS:,} texts; save the model again"
            )
        if count == 0:
            return []
        kind, size = attribute.datatype[:2], int.from_bytes(attribute.datatype[4:8], "little")
        if len(attribute.value) < count * size or not size or size > len(attribute.value):
            raise FormatError(
                f"{where} has {len(attribute.value):,} bytes for {count:,} texts of {size:,}; {AGAIN}"
            )
        values = [attribute.value[i * size : (i + 1) * size] for i in range(count)]
        if kind == b"\x19\x01" and size == 16:
            return [self._shared_text(value, where) for value in values]
        if kind[:1] != b"\x13":
            raise FormatError(f"{where} is not a list of texts; save the model again")
        return [_text(bytes(value).rstrip(b"\0 "), where) for value in values]

    def _shared_text(self, value: memoryview, where: str) -> str:
        """A text in a heap: its length, the heap's address, its number there."""
        length, address, index = struct.unpack("<IQI", value)
        if address not in self._heaps:
            self._heaps[address] = self._heap(address)
        text = self._heaps[address].get(index)
        if text is None or length > len(text):
            raise FormatError(f"{where} has a text that is not in its heap; {AGAIN}")
        return _text(bytes(text[:length]), where)

    def _heap(self, address: int) -> dict[int, memoryview]:
        """A heap that attributes share, by number."""
        what = "a heap of texts"
        mark, size = unpack("<8sQ", self._walker.block(address, 16, what), what)
        if mark != b"GCOL\x01\0\0\0" or size < 16:
            raise FormatError(f"{what} is damaged or of a newer form; {AGAIN}")
        body, at = self._walker.block(address + 16, size - 16, what), 0
        found: dict[int, memoryview] = {}
        while at + 16 <= len(body):
            index, _, length = struct.unpack_from("<HH4xQ", body, at)
            if index == 0:  # the rest is free
                return found
            if index in found or length > len(body) - at - 16:
                raise FormatError(f"{what} has texts that do not fit into it; {AGAIN}")
            found[index] = body[at + 16 : at + 16 + length]
            at += 16 + (length + 7 & ~7)
        return found


def _shown(path: tuple[str, ...]) -> str:
    """A path for messages."""
    return ascii("/" + "/".join(path))[1:-1][:120]


def _text(raw: bytes, where: str) -> str:
    """A name in an attribute."""
    if not raw or len(raw) > MAX_NAME or not raw.isascii() or b"\0" in raw:
        raise FormatError(
            f"{where} has {ascii(raw)[:80]}, which is no name of up to {MAX_NAME} letters; save the model again"
        )
    return raw.decode("ascii")


def _shape(body: memoryview, where: str) -> tuple[int, ...]:
    """A dataspace of version 1 that is as large as it can become."""
    version, rank, flags = unpack("<3B5x", body, where)
    dims = unpack(f"<8x{rank}Q", body, where) if rank <= MAX_DIMENSIONS else ()
    if version != 1 or flags > 1 or len(dims) != rank:
        raise FormatError(f"{where} has a shape in an unusual form; {OLDEST}")
    if flags and unpack(f"<8x{2 * rank}Q", body, where)[rank:] != dims:
        raise FormatError(f"{where} could still grow, so its values are in pieces; {OLDEST}")
    return dims


def _attribute(body: memoryview, where: str) -> tuple[str, _Attribute]:
    """Name and parts of an attribute, of version 1: each part is padded to a multiple of eight bytes."""
    version, zero, *sizes = unpack("<BBHHH", body, where)
    ends = [8]
    for size in sizes:
        ends.append(ends[-1] + (size + 7 & ~7))
    if (version, zero) != (1, 0) or ends[-1] > len(body) or sizes[1] < 8:
        raise FormatError(f"{where} has an attribute in an unusual form; {OLDEST}")
    name = bytes(body[8 : 8 + sizes[0]]).rstrip(b"\0").decode("latin-1")
    space = body[ends[2] : ends[2] + sizes[2]]
    return name, _Attribute(
        bytes(body[ends[1] : ends[1] + sizes[1]]),
        _shape(space, f"an attribute of {where}"),
        body[ends[3] :],
    )


def _array(messages: dict[int, memoryview], where: str) -> _Array:
    """Understand the messages of a dataset."""
    if set(messages) != {DATASPACE, DATATYPE, LAYOUT}:
        raise FormatError(f"{where} is not a dataset of the oldest form; {OLDEST}")
    version, kind = unpack("<BB", messages[LAYOUT], where)
    if (version, kind) != (3, 1):
        raise FormatError(f"{where} does not have its values in one piece; {OLDEST}")
    offset, size = unpack("<2xQQ", messages[LAYOUT], where)
    return _Array(bytes(messages[DATATYPE]), _shape(messages[DATASPACE], where), offset, size)
