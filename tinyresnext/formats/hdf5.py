r"""Finding one's way in an HDF5 file that nobody vouches for: just the part of the format that our model files use.

HDF5 is a large format. Its files may point at other files, name filters that are programs, and
describe structures that its library trusts. Hence this reader knows the oldest form of the format
only, and of that `Hdf5` only what `store_file.lay_out` makes, and `Walker` what Keras' files need
as well; whatever else there is, it refuses. All numbers are little-endian, all addresses count from
the beginning::

    superblock, 96 bytes: signature, sizes, end of file, root
        |
        v
    object header ---- attributes: name, type, value
        | a group has one more message: the symbol table
        |-----------------------> local heap HEAP ---> the members' names
        v                                                  ^
    B-tree TREE ---> symbol nodes SNOD ---> for each member: offset of its name, address of its
    object header
                                                                                         |
    object header of a dataset: dataspace (shape), datatype, fill value, attributes,     |
        layout ---> address and size of the values, in one piece            <------------+

An object header is a list of messages, each with a type, a size and a body; it may continue
elsewhere. No byte of a file belongs to two blocks: whoever comes upon a block claims it, and a
second claim is an error. So nothing is read twice, no chain of addresses runs in a circle, and all
that is read together is no larger than the file.

Source: The HDF Group, HDF5 File Format Specification, versions 0 of the superblock and 1 of the
object header.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect, insort
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..errors import FormatError, UnsafeError

__all__ = ["AGAIN", "FLOAT16", "FLOAT32", "Dataset", "Group", "Hdf5", "Walker", "fill", "unpack"]

AGAIN = "fetch or convert it again"
# Versions 0, 8 bytes for addresses and for lengths, nodes of 4 and of 16, no flags, base address 0,
# no free space.
SUPERBLOCK = b"\x89HDF\r\n\x1a\n" + struct.pack("<8B2HIQq", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0, 0, -1)
SUPERBLOCK_SIZE, HEADER_SIZE, HEAP_SIZE = 96, 16, 32
NODE_SIZE, NODE_ENTRIES = (
    544,
    32,
)  # of a B-tree: 24 bytes, then keys and children in turn, 33 and 32 of them
SYMBOLS_SIZE, SYMBOLS_ENTRIES, ENTRY_SIZE = 328, 8, 40
MOST_LEVELS = 3  # of a B-tree; with two, a group can have 8,192 members
MOST_HEADER = 1 << 16  # bytes of an object header; `store_file` allows the root more

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
FLAGS = dict.fromkeys((NIL, DATASPACE, LAYOUT, ATTRIBUTE, CONTINUATION, SYMBOLS), 0) | {
    DATATYPE: 1,
    FILL: 1,
}  # 1: constant
LINKS, STORAGE = (
    (0x02, 0x06, 0x0A),
    (0x07, 0x0B),
)  # links of newer formats; data in other files, filters
# Float, little-endian, sign at bit 31, 4 bytes, 32 bits from bit 0, exponent of 8 bits from 23, 23
# bits, bias 127.
FLOAT32 = struct.pack("<4BIHH4BI4x", 0x11, 0x20, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127)
FLOAT16 = struct.pack("<4BIHH4BI4x", 0x11, 0x20, 15, 0, 2, 0, 16, 10, 5, 0, 10, 15)
TEXT, SCALAR = b"\x13\x01\0\0", b"\x01" + bytes(7)  # ASCII padded with NUL, of one size; one value
CONTIGUOUS, DEFAULT_FILL = (
    b"\3\1",
    b"\2\2\2\1" + bytes(4),
)  # layout of version 3 in one piece; zeros in what is not written


class Group(NamedTuple):
    """What an object header says of a group: its attributes, and the addresses of B-tree and heap."""

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


class _Block(NamedTuple):
    """Bytes of the file that have been claimed."""

    begin: int
    end: int
    what: str


class Walker:
    """The ways through a file, whoever wrote it: object headers, groups and their members. It opens nothing else.

    Parameters
    ----------
    file : binary file
    writer : str
        Whose files are understood, for messages.

    Raises
    ------
    FormatError
        In the methods: something is damaged, or of a form that ``writer`` does not write.
    UnsafeError
        In the methods: something lies outside the file or across something else, or is a link.
    """

    def __init__(self, file: BinaryIO, writer: str) -> None:
        self._file, self._size, self._writer = file, os.fstat(file.fileno()).st_size, writer
        self._blocks: list[_Block] = []  # ordered, and none across another

    def claim(self, begin: int, size: int, what: str) -> None:
        """Make sure that bytes are within the file, and nobody else's."""
        new = _Block(begin, begin + size, what)
        if new.end > self._size:
            raise UnsafeError(
                f"{what} lies at bytes {begin:,} to {new.end:,}, but the file has {self._size:,}; {AGAIN}"
            )
        place = bisect(self._blocks, new)
        for other in self._blocks[max(place - 1, 0) : place + 1]:
            if new.begin < other.end and other.begin < new.end:
                raise UnsafeError(
                    f"{what} lies across {other.what}; expected each in its own place within the file"
                )
        insort(self._blocks, new)

    def members(self, group: Group, where: str) -> Iterator[tuple[bytes, int]]:
        """Each member's name and the address of its header, by and by: who meets a name that is not expected, stops.

        Every node has an entry, and the names ascend, so no name comes twice.
        """
        head = self.block(group.heap, HEAP_SIZE, f"the heap of {where}")
        mark, size, _, data = unpack("<8sQQQ", head, where)
        if mark != b"HEAP" + bytes(4) or size > MOST_HEADER:
            raise FormatError(
                f"the names in {where} are not as {self._writer} writes them; {AGAIN}"
            )
        names = bytes(self.block(data, size, f"the names of {where}"))
        last = b""
        for offset, address, cached, zero in self._symbols(group.tree, where):
            if cached == 2:
                raise UnsafeError(
                    f"{where} has a member that is a link to elsewhere; do not use files that have links"
                )
            end = names.find(b"\0", offset)
            name = names[offset:end]
            if end < 0 or cached > 1 or zero or b"/" in name or name <= last:
                raise FormatError(
                    f"{where} has members not as {self._writer} writes them, after {last!r:.80}; {AGAIN}"
                )
            last = name
            yield name, address

    def _symbols(self, address: int, where: str) -> Iterator[tuple[int, ...]]:
        """The entries of a group's symbol nodes, in order, by way of its B-tree."""
        waiting: list[tuple[int, int | None]] = [
            (address, None)
        ]  # with the level that the parent makes us expect
        while waiting:
            address, expected = waiting.pop()
            if expected == -1:
                node = self.block(address, SYMBOLS_SIZE, f"a symbol node of {where}")
                mark, count = unpack("<6sH", node, where)
                if mark != b"SNOD\x01\0" or not 1 <= count <= SYMBOLS_ENTRIES:
                    raise FormatError(
                        f"a symbol node of {where} is not as {self._writer} writes it; {AGAIN}"
                    )
                yield from struct.iter_unpack("<QQII16x", node[8 : 8 + ENTRY_SIZE * count])
                continue
            node = self.block(address, NODE_SIZE, f"the B-tree of {where}")
            mark, kind, level, count = unpack("<4sBBH", node, where)
            fits = level < MOST_LEVELS if expected is None else level == expected
            if mark != b"TREE" or kind != 0 or not fits or not 1 <= count <= NODE_ENTRIES:
                raise FormatError(
                    f"the B-tree of {where} is not as {self._writer} writes it; {AGAIN}"
                )
            children = [child for _, child in struct.iter_unpack("<QQ", node[24 : 24 + 16 * count])]
            waiting += [(child, level - 1) for child in reversed(children)]

    def messages(
        self, address: int, where: str, most: int
    ) -> Iterator[tuple[int, int, memoryview]]:
        """Type, flags and body of each message of an object header."""
        version, zero, count, links, size, rest = unpack(
            "<BBHIII", self.block(address, HEADER_SIZE, where), where
        )
        if (version, zero, rest) != (1, 0, 0):
            raise FormatError(
                f"{where} has an object header not as {self._writer} writes it; save the model again"
            )
        if links != 1:
            raise UnsafeError(
                f"{where} says that {links} names lead to it, expected 1; do not use files that have links"
            )
        waiting, seen = deque([(address + HEADER_SIZE, size)]), 0
        while waiting:
            begin, size = waiting.popleft()
            most -= size
            if most < 0:
                raise UnsafeError(
                    f"the header of {where} is {-most:,} bytes longer than {self._writer} writes; do not use the file"
                )
            chunk, at = self.block(begin, size, f"the header of {where}"), 0
            while at < size:
                kind, length, flags, zeros = unpack("<HHB3s", chunk[at:], where)
                body = chunk[at + 8 : at + 8 + length]
                at, seen = at + 8 + length, seen + 1
                if at > size or length % 8 or any(zeros) or seen > count:
                    raise FormatError(
                        f"the header of {where} has messages that do not fit into it; {AGAIN}"
                    )
                if kind == CONTINUATION:
                    waiting.append(unpack("<QQ", body, where))
                yield kind, flags, body
        if seen != count:
            raise FormatError(
                f"the header of {where} has {seen} messages, and says {count}; {AGAIN}"
            )

    def block(self, address: int, size: int, what: str) -> memoryview:
        """Claim bytes and read them."""
        self.claim(address, size, what)
        data = bytearray(size)
        fill(self._file, address, memoryview(data))
        return memoryview(data).toreadonly()


class Hdf5(Walker):
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
        super().__init__(file, "tinyresnext")
        file.seek(0)
        head = file.read(SUPERBLOCK_SIZE)
        if head[:8] != SUPERBLOCK[:8]:
            checkpoint = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
            what = (
                "not an HDF5 file, but a checkpoint, it seems" if checkpoint else "not an HDF5 file"
            )
            raise FormatError(f"{what}; `tinyresnext convert` makes a model file of a checkpoint")
        if len(head) < SUPERBLOCK_SIZE or head[: len(SUPERBLOCK)] != SUPERBLOCK:
            raise FormatError(
                "an HDF5 file, but not as tinyresnext writes it; `tinyresnext convert` makes one"
            )
        end, driver, name, address, cached, zero, tree, heap = struct.unpack_from(
            "<QqQQIIQQ", head, len(SUPERBLOCK)
        )
        if end != self._size:
            raise FormatError(
                f"the file has {self._size:,} bytes, and its beginning says {end:,}; {AGAIN}"
            )
        if (driver, name, cached, zero) != (-1, 0, 1, 0):
            raise FormatError(
                "an HDF5 file, but its root is not as tinyresnext writes it; `tinyresnext convert` makes one"
            )
        self.claim(0, SUPERBLOCK_SIZE, "the superblock")
        root = self.object(address, "/", most)
        if not isinstance(root, Group) or (root.tree, root.heap) != (tree, heap):
            raise FormatError(
                f"the root is not the group that the beginning of the file names; {AGAIN}"
            )
        self.root = root

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
        for kind, flags, body in self.messages(address, where, most):
            if kind in STORAGE:
                raise UnsafeError(
                    f"{where} is not stored plainly, but filtered or in other files; save the model again"
                )
            if kind in LINKS:
                raise UnsafeError(
                    f"{where} may have links to elsewhere, which tinyresnext never writes; do not use the file"
                )
            if kind == ATTRIBUTE and flags == 0:
                name, value = _attribute(body, where)
                if name in attributes:
                    raise FormatError(f"{where} has two attributes {name!r:.80}; {AGAIN}")
                attributes[name] = value
            elif kind not in FLAGS or flags != FLAGS[kind] or kind in found:
                raise FormatError(
                    f"{where} has a message of type {kind} with flags {flags}, not as tinyresnext writes it"
                )
            elif kind not in (NIL, CONTINUATION):
                found[kind] = body
        if set(found) == {SYMBOLS}:
            return Group(attributes, *unpack("<QQ", found[SYMBOLS], where))
        if set(found) == {DATASPACE, DATATYPE, FILL, LAYOUT}:
            return _dataset(attributes, found, where)
        kinds = ", ".join(map(str, sorted(found))) or "none"
        raise FormatError(
            f"{where} is neither a group nor a dataset as tinyresnext writes them: its messages are {kinds}"
        )


def fill(file: BinaryIO, offset: int, rest: memoryview) -> None:
    """Read as many bytes as there is room for.

    Raises
    ------
    FormatError
        The file ends before.
    """
    file.seek(offset)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise FormatError(f"the file ends {len(rest):,} bytes early; {AGAIN}")
        rest = rest[count:]


def unpack(form: str, data: memoryview, where: str) -> tuple:
    """The numbers at the beginning of a block."""
    if len(data) < struct.calcsize(form):
        raise FormatError(
            f"{where} has a message of {len(data)} bytes, which is too short; {AGAIN}"
        )
    return struct.unpack_from(form, data)


def _padded(size: int) -> int:
    """The next multiple of 8."""
    return -(-size // 8) * 8


def _attribute(body: memoryview, where: str) -> tuple[str, memoryview]:
    """Name and bytes of an attribute, which must be ASCII text of a stated length."""
    version, zero, *sizes = unpack("<BBHHH", body, where)
    kind = 8 + _padded(sizes[0])
    name, space, value = bytes(body[8:kind]), kind + 8, kind + 16
    shown = ascii(name.rstrip(b"\0").decode("ascii", "replace"))[:80]
    if (
        (version, zero, *sizes[1:]) != (1, 0, 8, 8)
        or body[kind : kind + 4] != TEXT
        or body[space:value] != SCALAR
    ):
        raise FormatError(
            f"the attribute {shown} of {where} is not text of fixed length; save the model again"
        )
    size = int.from_bytes(body[kind + 4 : kind + 8], "little")
    letters = name[: sizes[0] - 1] if sizes[0] else b""
    if not letters.isascii() or b"\0" in letters or any(name[len(letters) :]) or not letters:
        raise FormatError(
            f"{where} has an attribute whose name {shown} is not as tinyresnext writes it; {AGAIN}"
        )
    if size == 0 or value + _padded(size) != len(body):
        raise FormatError(
            f"the attribute {shown} of {where} has {size:,} bytes in a message of {len(body):,}; {AGAIN}"
        )
    return letters.decode("ascii"), body[value : value + size]


def _dataset(
    attributes: dict[str, memoryview], found: dict[int, memoryview], where: str
) -> Dataset:
    """Understand the messages of a dataset."""
    if found[LAYOUT][:2] != CONTIGUOUS or found[FILL] != DEFAULT_FILL:
        raise UnsafeError(
            f"{where} is not stored plainly, but in pieces or in other files; save the model again"
        )
    offset, size = unpack("<2xQQ6x", found[LAYOUT], where)
    space, shape = found[DATASPACE], None
    rank = (len(space) - 8) // 16
    if space[:8] == struct.pack("<3B5x", 1, rank % 256, 1) and len(space) == 8 + 16 * rank:
        dims = struct.unpack_from(f"<{2 * rank}Q", space, 8)
        shape = (
            dims[:rank] if dims[:rank] == dims[rank:] else None
        )  # what is there, and how far it could grow
    return Dataset(attributes, shape, bytes(found[DATATYPE]), offset, size)
