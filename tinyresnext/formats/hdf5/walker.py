"""Reading the structure of an untrusted HDF5 file: object headers, groups and their members.

HDF5 is a large format. Its files may point at other files, name filters that are programs, and
describe structures that its library trusts. So this reader knows the oldest form of the format
only, and refuses everything else. All numbers are little-endian, all addresses count from the
beginning::

    superblock, 96 bytes: signature, sizes, end of file, root
        |
        v
    object header ---> attributes: name, type, value
        |
        |   a group has one more message, the symbol table
        |
        +--> local heap HEAP ---> the members' names <-------------+
        |                                                          |
        +--> B-tree TREE ---> symbol nodes SNOD ---> for each member: offset of its name,
                                                     address of its object header
                                                                   |
                                                                   v
    object header of a dataset: dataspace (shape), datatype, fill value, attributes,
        layout ---> address and size of the values, in one piece

An object header is a list of messages, each with a type, a size and a body; it may continue
elsewhere. No byte of a file belongs to two blocks: each block is registered when it is read
(`Walker.claim`), and an overlap is an error. So nothing is read twice, no chain of addresses forms
a cycle, and all that is read is no larger than the file.

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

from ...errors import FormatError, UnsafeError
from ...system.files import fill
from .form import (
    AGAIN,
    ENTRY_SIZE,
    HEADER_SIZE,
    HEAP_SIZE,
    MOST_LEVELS,
    MOST_NAMES,
    NODE_ENTRIES,
    NODE_SIZE,
    SYMBOLS_ENTRIES,
    SYMBOLS_SIZE,
    Message,
    unpack,
)

__all__ = ["Walker"]


class _Block(NamedTuple):
    """Bytes of the file that have been claimed."""

    begin: int
    end: int
    what: str


class Walker:
    """Reading the structure of one open file. No other file is opened.

    Parameters
    ----------
    file : binary file
    writer : str
        Program whose form is accepted, for messages.

    Raises
    ------
    FormatError
        In the methods: something is damaged, or of a form that ``writer`` does not write.
    UnsafeError
        In the methods: something lies outside the file or across something else, or is a link.
    """

    def __init__(self, file: BinaryIO, writer: str) -> None:
        self.file, self.size, self._writer = file, os.fstat(file.fileno()).st_size, writer
        self._blocks: list[_Block] = []  # ordered, and none across another

    def claim(self, begin: int, size: int, what: str) -> None:
        """Check that bytes lie within the file and belong to nothing else, and note their owner.

        So no dataset is larger than its file, and neither are all of them together.
        """
        new = _Block(begin, begin + size, what)
        if new.end > self.size:
            raise UnsafeError(
                f"{what} lies at bytes {begin:,} to {new.end:,}, but the file has {self.size:,}; "
                f"{AGAIN}"
            )
        place = bisect(self._blocks, new)
        for other in self._blocks[max(place - 1, 0) : place + 1]:
            if new.begin < other.end and other.begin < new.end:
                raise UnsafeError(
                    f"{what} lies across {other.what}; each must have its own place in the file"
                )
        insort(self._blocks, new)

    def block(self, address: int, size: int, what: str) -> memoryview:
        """Claim bytes and read them."""
        self.claim(address, size, what)
        data = bytearray(size)
        fill(self.file, address, memoryview(data), what)
        return memoryview(data).toreadonly()

    def members(self, tree: int, heap: int, where: str) -> Iterator[tuple[bytes, int]]:
        """Yield the name and address of each member of a group, one by one.

        So a caller that meets an unexpected name can stop at once. Every node has an entry, and
        the names ascend, so no name comes twice.

        Parameters
        ----------
        tree, heap : int
            The addresses of the group's B-tree and heap.
        where : str
            Its path, for messages.
        """
        head = self.block(heap, HEAP_SIZE, f"the heap of {where}")
        mark, size, _, data = unpack("<8sQQQ", head, where)
        if mark != b"HEAP" + bytes(4) or size > MOST_NAMES:
            raise FormatError(
                f"the names in {where} are not as {self._writer} writes them; {AGAIN}"
            )
        names = bytes(self.block(data, size, f"the names of {where}"))
        last = b""
        for offset, address, cached, zero in self._symbols(tree, where):
            if cached == 2:
                raise UnsafeError(
                    f"{where} has a member that is a link; do not use files that have links"
                )
            end = names.find(b"\0", offset)
            name = names[offset:end]
            if end < 0 or cached > 1 or zero or b"/" in name or name <= last:
                raise FormatError(
                    f"{where} has members not as {self._writer} writes them, after {last!r:.80}; "
                    f"{AGAIN}"
                )
            last = name
            yield name, address

    def _symbols(self, address: int, where: str) -> Iterator[tuple[int, ...]]:
        """Yield the entries of a group's symbol nodes in order, found through its B-tree."""
        # each with the level that its parent requires
        waiting: list[tuple[int, int | None]] = [(address, None)]
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
        """Yield type, flags and body of each message of an object header.

        Parameters
        ----------
        address : int
        where : str
            The object's path, for messages.
        most : int
            Bytes that the header may have.
        """
        count, size = self._header(address, where)
        waiting, seen = deque([(address + HEADER_SIZE, size)]), 0
        while waiting:
            begin, size = waiting.popleft()
            most -= size
            if most < 0:
                raise UnsafeError(
                    f"the header of {where} is {-most:,} bytes longer than {self._writer} writes; "
                    "do not use the file"
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
                if kind == Message.CONTINUATION:
                    offset, length = unpack("<QQ", body, where)
                    waiting.append((offset, length))
                yield kind, flags, body
        if seen != count:
            raise FormatError(
                f"the header of {where} has {seen} messages, and says {count}; {AGAIN}"
            )

    def _header(self, address: int, where: str) -> tuple[int, int]:
        """Return how many messages an object header has, and the size of its first part."""
        head = self.block(address, HEADER_SIZE, where)
        version, zero, count, links, size, rest = unpack("<BBHIII", head, where)
        if (version, zero, rest) != (1, 0, 0):
            raise FormatError(
                f"{where} has an object header not as {self._writer} writes it; save the model "
                "again"
            )
        if links != 1:
            raise UnsafeError(
                f"{where} says that {links} names lead to it, expected 1; do not use files that "
                "have links"
            )
        return count, size
