"""The constants of the HDF5 format: the superblock, the sizes of blocks, the types of messages.

Source: The HDF Group, HDF5 File Format Specification, versions 0 of the superblock and 1 of the
object header.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import BinaryIO, NamedTuple

from ...errors import FormatError

AGAIN = "fetch or convert it again"
SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Versions 0, 8 bytes for addresses and for lengths, nodes of 4 and of 16, no flags, base address 0,
# no free space.
SUPERBLOCK = SIGNATURE + struct.pack("<8B2HIQq", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0, 0, -1)
SUPERBLOCK_SIZE, HEADER_SIZE, HEAP_SIZE = 96, 16, 32
# of a B-tree: 24 bytes, then 33 keys and 32 children in turn
NODE_SIZE, NODE_ENTRIES = 544, 32
SYMBOLS_SIZE, SYMBOLS_ENTRIES, ENTRY_SIZE = 328, 8, 40
MOST_LEVELS = 3  # of a B-tree; with two, a group can have 8,192 members
# bytes of the names in a group; they double as names come, to 90,112 for 2,494 layers of Keras
MOST_NAMES = 1 << 20
MOST_HEADER = 1 << 16  # bytes of an object header, where the reader does not allow more


class Message(IntEnum):
    """The types of messages in an object header."""

    NIL = 0x00
    DATASPACE = 0x01  # a shape
    LINK_INFO = 0x02
    DATATYPE = 0x03
    OLD_FILL = 0x04  # the value of what was not written, in an older form
    FILL = 0x05
    LINK = 0x06
    EXTERNAL = 0x07  # the values are in other files
    LAYOUT = 0x08  # where the values are
    GROUP_INFO = 0x0A
    FILTERS = 0x0B
    ATTRIBUTE = 0x0C
    COMMENT = 0x0D
    OLD_TIME = 0x0E
    CONTINUATION = 0x10  # where the header continues
    SYMBOLS = 0x11  # where a group's members are
    TIME = 0x12


class Superblock(NamedTuple):
    """What the beginning of a file says, behind the part that is always the same.

    ``end`` is the size of the file, ``address`` that of the root's object header, ``tree`` and
    ``heap`` are the root's B-tree and heap if ``cached`` is 1.
    """

    end: int
    driver: int
    name: int
    address: int
    cached: int
    zero: int
    tree: int
    heap: int


def read_head(file: BinaryIO) -> bytes:
    """Return the bytes of the superblock, or as many as there are."""
    file.seek(0)
    return file.read(SUPERBLOCK_SIZE)


def parse_superblock(head: bytes, size: int) -> Superblock:
    """Return the fields of a superblock whose first part is as expected.

    Raises
    ------
    FormatError
        The file does not have the size that its superblock states.
    """
    found = Superblock(*struct.unpack_from("<QqQQIIQQ", head, len(SUPERBLOCK)))
    if found.end != size:
        raise FormatError(
            f"the file has {size:,} bytes, and its beginning says {found.end:,}; {AGAIN}"
        )
    return found


def unpack(form: str, data: memoryview, where: str) -> tuple:
    """Return the numbers at the beginning of a block.

    Raises
    ------
    FormatError
        The block is too short.
    """
    if len(data) < struct.calcsize(form):
        raise FormatError(
            f"{where} has a message of {len(data)} bytes, which is too short; {AGAIN}"
        )
    return struct.unpack_from(form, data)


def padded(size: int) -> int:
    """Return the next multiple of 8."""
    return -(-size // 8) * 8
