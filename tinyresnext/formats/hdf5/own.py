"""HDF5 files as tinyresnext writes them: attributes of text, datasets in one piece, no more."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ...errors import FormatError, UnsafeError
from ..others import RUN_STATE
from .form import (
    AGAIN,
    MOST_HEADER,
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

__all__ = ["Dataset", "Group", "Hdf5"]

# The messages that an object of ours may have, each with its flags: 1 is "constant".
FLAGS: dict[int, int] = {
    Message.NIL: 0,
    Message.DATASPACE: 0,
    Message.DATATYPE: 1,
    Message.FILL: 1,
    Message.LAYOUT: 0,
    Message.ATTRIBUTE: 0,
    Message.CONTINUATION: 0,
    Message.SYMBOLS: 0,
}
LINKS = (Message.LINK_INFO, Message.LINK, Message.GROUP_INFO)  # of newer forms of the format
STORAGE = (Message.EXTERNAL, Message.FILTERS)
TEXT = b"\x13\x01\0\0"  # a datatype: ASCII padded with NUL, of one size
SCALAR = b"\x01" + bytes(7)  # a dataspace: one value
CONTIGUOUS = b"\3\1"  # a layout of version 3: in one piece
DEFAULT_FILL = b"\2\2\2\1" + bytes(4)  # zeros in what is not written


class Group(NamedTuple):
    """What an object header says of a group: attributes, and the addresses of B-tree and heap."""

    attributes: dict[str, memoryview]
    tree: int
    heap: int


class Dataset(NamedTuple):
    """What an object header says of a dataset; ``shape`` is None for what is no plain array."""

    attributes: dict[str, memoryview]
    shape: tuple[int, ...] | None
    datatype: bytes
    offset: int
    size: int


class Hdf5:
    """A file whose superblock is as we write it.

    Parameters
    ----------
    file : binary file
    most : int
        Bytes of the root's object header, which has the long attributes.

    Raises
    ------
    FormatError
        Here and in the methods: something is damaged, or of a form that we do not write.
    UnsafeError
        Here and in the methods: something lies outside the file or across something else, or is a
        link, or the data are in pieces, filtered or in other files.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._walker = Walker(file, "tinyresnext")
        head = read_head(file)
        if not head.startswith(SIGNATURE):
            if head[:4] == b"PK\x03\x04" and head[30:].startswith(b"meta.npy"):
                raise FormatError(f"not an HDF5 file, but as it seems {RUN_STATE}")
            seems = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
            what = ", but it seems to be a checkpoint" if seems else ""
            raise FormatError(
                f"not an HDF5 file{what}; `tinyresnext convert` makes a model file of a "
                "checkpoint, and tinyresnext.load_checkpoint reads one as it is"
            )
        if len(head) < SUPERBLOCK_SIZE or head[: len(SUPERBLOCK)] != SUPERBLOCK:
            raise FormatError(
                "an HDF5 file, but not as tinyresnext writes it; `tinyresnext convert` makes one"
            )
        found = parse_superblock(head, self._walker.size)
        if (found.driver, found.name, found.cached, found.zero) != (-1, 0, 1, 0):
            raise FormatError(
                "an HDF5 file, but its root is not as tinyresnext writes it; `tinyresnext convert` "
                "makes one"
            )
        self.claim(0, SUPERBLOCK_SIZE, "the superblock")
        root = self.object(found.address, "/", most)
        if not isinstance(root, Group) or (root.tree, root.heap) != (found.tree, found.heap):
            raise FormatError(
                f"the root is not the group that the beginning of the file names; {AGAIN}"
            )
        self.root = root

    def claim(self, begin: int, size: int, what: str) -> None:
        """Check that bytes lie within the file and belong to nothing else, and note their owner."""
        self._walker.claim(begin, size, what)

    def members(self, group: Group, where: str) -> Iterator[tuple[bytes, int]]:
        """Yield the name and address of each member of a group, in the order of the names."""
        return self._walker.members(group.tree, group.heap, where)

    def object(self, address: int, where: str, most: int = MOST_HEADER) -> Group | Dataset:
        """Read the header of a group or dataset.

        Parameters
        ----------
        address : int
        where : str
            Its path, for messages.
        most : int
            Bytes that the header may have.
        """
        attributes: dict[str, memoryview] = {}
        found: dict[int, memoryview] = {}
        for kind, flags, body in self._walker.messages(address, where, most):
            if kind in STORAGE:
                raise UnsafeError(
                    f"{where} is not stored plainly, but filtered or in other files; save the "
                    "model again"
                )
            if kind in LINKS:
                raise UnsafeError(
                    f"{where} may have links, which tinyresnext never writes; do not use the file"
                )
            if kind == Message.ATTRIBUTE and flags == 0:
                name, value = _attribute(body, where)
                if name in attributes:
                    raise FormatError(f"{where} has two attributes {name!r:.80}; {AGAIN}")
                attributes[name] = value
            elif kind not in FLAGS or flags != FLAGS[kind] or kind in found:
                raise FormatError(
                    f"{where} has a message of type {kind} with flags {flags}, not as tinyresnext "
                    "writes it"
                )
            elif kind not in (Message.NIL, Message.CONTINUATION):
                found[kind] = body
        if set(found) == {Message.SYMBOLS}:
            return Group(attributes, *unpack("<QQ", found[Message.SYMBOLS], where))
        if set(found) == {Message.DATASPACE, Message.DATATYPE, Message.FILL, Message.LAYOUT}:
            return _dataset(attributes, found, where)
        kinds = ", ".join(map(str, sorted(found))) or "none"
        raise FormatError(
            f"{where} is neither a group nor a dataset as tinyresnext writes them: its messages "
            f"are {kinds}"
        )


def _attribute(body: memoryview, where: str) -> tuple[str, memoryview]:
    """Return name and bytes of an attribute, which must be ASCII text of a stated length."""
    version, zero, *sizes = unpack("<BBHHH", body, where)
    kind = 8 + padded(sizes[0])
    name, space, value = bytes(body[8:kind]), kind + 8, kind + 16
    shown = ascii(name.rstrip(b"\0").decode("ascii", "replace"))[:80]
    plain = (version, zero, *sizes[1:]) == (1, 0, 8, 8)
    if not plain or body[kind : kind + 4] != TEXT or body[space:value] != SCALAR:
        raise FormatError(
            f"the attribute {shown} of {where} is not text of fixed length; save the model again"
        )
    size = int.from_bytes(body[kind + 4 : kind + 8], "little")
    letters = name[: sizes[0] - 1] if sizes[0] else b""
    if not letters.isascii() or b"\0" in letters or any(name[len(letters) :]) or not letters:
        raise FormatError(
            f"{where} has an attribute whose name {shown} is not as tinyresnext writes it; {AGAIN}"
        )
    if size == 0 or value + padded(size) != len(body):
        raise FormatError(
            f"the attribute {shown} of {where} has {size:,} bytes in a message of {len(body):,}; "
            f"{AGAIN}"
        )
    return letters.decode("ascii"), body[value : value + size]


def _dataset(
    attributes: dict[str, memoryview], found: dict[int, memoryview], where: str
) -> Dataset:
    """Understand the messages of a dataset."""
    layout, space = found[Message.LAYOUT], found[Message.DATASPACE]
    if layout[:2] != CONTIGUOUS or found[Message.FILL] != DEFAULT_FILL:
        raise UnsafeError(
            f"{where} is not stored plainly, but in pieces or in other files; save the model again"
        )
    offset, size = unpack("<2xQQ6x", layout, where)
    shape = None
    rank = (len(space) - 8) // 16
    if space[:8] == struct.pack("<3B5x", 1, rank % 256, 1) and len(space) == 8 + 16 * rank:
        sides = struct.unpack_from(f"<{2 * rank}Q", space, 8)
        # the present sides, and how far each could grow
        shape = sides[:rank] if sides[:rank] == sides[rank:] else None
    return Dataset(attributes, shape, bytes(found[Message.DATATYPE]), offset, size)
