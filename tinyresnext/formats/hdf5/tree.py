"""HDF5 files of the oldest form with all that Keras' files have, found by path.

Attributes may be lists of texts. The texts have a fixed size, or, if a newer h5py has written them,
lie in heaps that all attributes share (``GCOL``).
"""

from __future__ import annotations

import struct
from math import prod
from typing import BinaryIO, NamedTuple

from ...errors import FormatError, UnsafeError
from ..dtypes import MAX_DIMENSIONS
from .form import (
    AGAIN,
    SIGNATURE,
    SUPERBLOCK,
    SUPERBLOCK_SIZE,
    Message,
    padded,
    parse_superblock,
    read_head,
    unpack,
)
from .walker import Walker

__all__ = ["Array", "Attribute", "Tree", "shown"]

OLDEST = "open it with h5py and write it again with libver='earliest' and without compression"
# Flags of a message; HDF5 set the second for all attributes until 1.12.1 (h5py 3.7 of 2022)
CONSTANT, NOT_TO_BE_SHARED = 1, 4
MOST_HEADER = 1 << 20  # bytes of an object header; the root's has the list of all layers
MOST_DEPTH = 8  # of groups in groups
MOST_TEXTS = 20_000  # in a list
MOST_TEXT = 256  # characters
HARMLESS = (
    Message.NIL,
    Message.OLD_FILL,
    Message.FILL,
    Message.COMMENT,
    Message.OLD_TIME,
    Message.CONTINUATION,
    Message.TIME,
)
ELSEWHERE: dict[int, str] = {
    Message.LINK_INFO: "links",
    Message.LINK: "links",
    Message.EXTERNAL: "its values in other files",
    Message.GROUP_INFO: "links",
    Message.FILTERS: "filters",
}


class Attribute(NamedTuple):
    """Type, shape and bytes of an attribute."""

    datatype: bytes
    shape: tuple[int, ...]
    value: memoryview


class Array(NamedTuple):
    """Type and shape of a dataset, and where its values are."""

    datatype: bytes
    shape: tuple[int, ...]
    offset: int
    size: int


class _Group(NamedTuple):
    """A group whose header has been read: attributes, and the addresses of B-tree and heap."""

    attributes: dict[str, Attribute]
    tree: int
    heap: int


class Tree:
    """A file, and what has been read of it: each group and heap once, as no byte may belong to two.

    A path is a tuple of names; that of the root is empty.

    Raises
    ------
    FormatError
        Here and in the methods: something is damaged, or of a form that is not understood; the
        message says how to rewrite the file.
    UnsafeError
        Here and in the methods: something lies outside the file or across something else, is a
        link, filtered or in other files.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._walker = Walker(file, "Keras")
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._members: dict[tuple[str, ...], dict[str, int]] = {}
        self._heaps: dict[int, dict[int, memoryview]] = {}
        self._groups[()] = self._opened(self._root(file), "/")

    def _root(self, file: BinaryIO) -> int:
        """Return the address of the root, from the superblock."""
        head = read_head(file)
        if len(head) < SUPERBLOCK_SIZE or not head.startswith(SIGNATURE):
            raise FormatError(f"not an HDF5 file, or its beginning is cut off; {AGAIN}")
        if head[: len(SUPERBLOCK)] != SUPERBLOCK:
            raise FormatError(
                f"an HDF5 file that does not begin as Keras' do (superblock of version {head[8]}); "
                f"{OLDEST}"
            )
        found = parse_superblock(head, self._walker.size)
        if found.driver != -1 or found.cached > 1 or found.zero:
            raise FormatError(f"an HDF5 file whose root has an unusual form; {OLDEST}")
        self._walker.claim(0, SUPERBLOCK_SIZE, "the superblock")
        return found.address

    def attributes(self, path: tuple[str, ...]) -> dict[str, Attribute]:
        """Return the attributes of the group at a path."""
        return self._group(path).attributes

    def members(self, path: tuple[str, ...]) -> dict[str, int]:
        """Return names and addresses of what the group at a path contains."""
        if path not in self._members:
            group = self._group(path)
            found = self._walker.members(group.tree, group.heap, shown(path))
            self._members[path] = {name.decode("latin-1"): address for name, address in found}
        return self._members[path]

    def array(self, path: tuple[str, ...], name: str) -> Array:
        """Return the dataset at a path; ``name`` is what messages call it."""
        return _array(self._messages(self._address(path), name), name)

    def claim(self, array: Array, what: str) -> None:
        """Check that the values of a dataset lie within the file and belong to nothing else."""
        if array.size:
            self._walker.claim(array.offset, array.size, what)

    def _group(self, path: tuple[str, ...]) -> _Group:
        """Return the group at a path."""
        if path not in self._groups:
            self._groups[path] = self._opened(self._address(path), shown(path))
        return self._groups[path]

    def _address(self, path: tuple[str, ...]) -> int:
        """Return where the header of the object at a path begins."""
        if len(path) > MOST_DEPTH:
            raise FormatError(f"{shown(path)} is too deep; expected at most {MOST_DEPTH} levels")
        members = self.members(path[:-1])
        if path[-1] not in members:
            raise FormatError(f"{shown(path)} is listed but missing; save the model again")
        return members[path[-1]]

    def _opened(self, address: int, where: str) -> _Group:
        """Read the header of a group."""
        attributes: dict[str, Attribute] = {}
        messages = self._messages(address, where, attributes)
        if set(messages) != {Message.SYMBOLS}:
            raise FormatError(f"{where} is not a group of the oldest form; {OLDEST}")
        return _Group(attributes, *unpack("<QQ", messages[Message.SYMBOLS], where))

    def _messages(
        self, address: int, where: str, attributes: dict[str, Attribute] | None = None
    ) -> dict[int, memoryview]:
        """Return the messages that say what an object is, by type; put attributes where asked."""
        found: dict[int, memoryview] = {}
        for kind, flags, body in self._walker.messages(address, where, MOST_HEADER):
            if kind in ELSEWHERE:
                raise UnsafeError(
                    f"{where} may have {ELSEWHERE[kind]}, which is not read; {OLDEST}"
                )
            if flags & ~(CONSTANT | NOT_TO_BE_SHARED) or kind in found:
                raise FormatError(
                    f"{where} has a message of type {kind} that is shared or repeated; {OLDEST}"
                )
            if kind == Message.ATTRIBUTE:
                name, attribute = _attribute(body, where)
                into = {} if attributes is None else attributes
                if into.setdefault(name, attribute) is not attribute:
                    raise FormatError(
                        f"{where} has two attributes {ascii(name)[:80]}; save the model again"
                    )
            elif kind in (Message.DATASPACE, Message.DATATYPE, Message.LAYOUT, Message.SYMBOLS):
                found[kind] = body
            elif kind not in HARMLESS:
                raise FormatError(f"{where} has a message of the unknown type {kind}; {OLDEST}")
        return found

    def texts(self, attribute: Attribute, where: str) -> list[str]:
        """Return the texts of an attribute; an empty list may have any type."""
        count = prod(attribute.shape)
        if len(attribute.shape) != 1 or count > MOST_TEXTS:
            raise FormatError(
                f"{where} is not a list of up to {MOST_TEXTS:,} texts; save the model again"
            )
        if count == 0:
            return []
        kind, size = attribute.datatype[:2], int.from_bytes(attribute.datatype[4:8], "little")
        if len(attribute.value) < count * size or not size or size > len(attribute.value):
            raise FormatError(
                f"{where} has {len(attribute.value):,} bytes for {count:,} texts of {size:,}; "
                f"{AGAIN}"
            )
        values = [attribute.value[i * size : (i + 1) * size] for i in range(count)]
        if kind == b"\x19\x01" and size == 16:
            return [self._shared_text(value, where) for value in values]
        if kind[:1] != b"\x13":
            raise FormatError(f"{where} is not a list of texts; save the model again")
        return [_text(bytes(value).rstrip(b"\0 "), where) for value in values]

    def text(self, attribute: Attribute, where: str) -> str:
        """Return the text of an attribute that is one, and no list."""
        if attribute.shape:
            raise FormatError(f"{where} is a list, not a text; save the model again")
        return self.texts(attribute._replace(shape=(1,)), where)[0]

    def _shared_text(self, value: memoryview, where: str) -> str:
        """Return a text in a heap; ``value`` has its length, the heap's address, its number."""
        length, address, index = struct.unpack("<IQI", value)
        if address not in self._heaps:
            self._heaps[address] = self._heap(address)
        text = self._heaps[address].get(index)
        if text is None or length > len(text):
            raise FormatError(f"{where} has a text that is not in its heap; {AGAIN}")
        return _text(bytes(text[:length]), where)

    def _heap(self, address: int) -> dict[int, memoryview]:
        """Return the texts of a heap that attributes share, by number."""
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
            at += 16 + padded(length)
        return found


def shown(path: tuple[str, ...]) -> str:
    """Return a path for messages."""
    return ascii("/" + "/".join(path))[1:-1][:120]


def _text(raw: bytes, where: str) -> str:
    """Return a name in an attribute."""
    if not raw or len(raw) > MOST_TEXT or not raw.isascii() or b"\0" in raw:
        raise FormatError(
            f"{where} has {ascii(raw)[:80]}, which is not a name of up to {MOST_TEXT} letters; "
            "save the model again"
        )
    return raw.decode("ascii")


def _shape(body: memoryview, where: str) -> tuple[int, ...]:
    """Return the shape in a dataspace of version 1, which must be as large as it can become."""
    version, rank, flags = unpack("<3B5x", body, where)
    sides = unpack(f"<8x{rank}Q", body, where) if rank <= MAX_DIMENSIONS else ()
    if version != 1 or flags > 1 or len(sides) != rank:
        raise FormatError(f"{where} has a shape of an unusual form; {OLDEST}")
    if flags and unpack(f"<8x{2 * rank}Q", body, where)[rank:] != sides:
        raise FormatError(f"{where} could still grow, so its values are in pieces; {OLDEST}")
    return sides


def _attribute(body: memoryview, where: str) -> tuple[str, Attribute]:
    """Return name and parts of an attribute of version 1; each part is padded to 8 bytes."""
    version, zero, *sizes = unpack("<BBHHH", body, where)
    ends = [8]
    for size in sizes:
        ends.append(ends[-1] + padded(size))
    if (version, zero) != (1, 0) or ends[-1] > len(body) or sizes[1] < 8:
        raise FormatError(f"{where} has an attribute of an unusual form; {OLDEST}")
    name = bytes(body[8 : 8 + sizes[0]]).rstrip(b"\0").decode("latin-1")
    datatype = bytes(body[ends[1] : ends[1] + sizes[1]])
    space = body[ends[2] : ends[2] + sizes[2]]
    shape = _shape(space, f"an attribute of {where}")
    return name, Attribute(datatype, shape, body[ends[3] :])


def _array(messages: dict[int, memoryview], where: str) -> Array:
    """Understand the messages of a dataset."""
    if set(messages) != {Message.DATASPACE, Message.DATATYPE, Message.LAYOUT}:
        raise FormatError(f"{where} is not a dataset of the oldest form; {OLDEST}")
    version, kind = unpack("<BB", messages[Message.LAYOUT], where)
    if (version, kind) != (3, 1):
        raise FormatError(f"{where} does not have its values in one piece; {OLDEST}")
    offset, size = unpack("<2xQQ", messages[Message.LAYOUT], where)
    shape = _shape(messages[Message.DATASPACE], where)
    return Array(bytes(messages[Message.DATATYPE]), shape, offset, size)
