"""Writing a zip archive with stored (uncompressed) members. Equal input makes equal bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

from ...errors import UsageError
from .records import CENTRAL, CENTRAL_MAGIC, END, END_MAGIC, FULL, LOCAL, LOCAL_MAGIC

__all__ = ["write_zip"]

ALIGNMENT = 64  # of a member's first byte, as PyTorch writes it: whole cache lines
PADDING = 0x4246  # the tag of PyTorch's own padding block
VERSION = 20  # 4.4.3: a plain archive
DATE = 0x21  # 1 January 1980


def write_zip(file: BinaryIO, members: Iterable[tuple[str, list[bytes | memoryview]]]) -> None:
    """Write an archive with stored members whose data begin at multiples of 64 bytes.

    Parameters
    ----------
    file : binary file
        Empty, at its beginning.
    members : iterable of (name, parts)
        ASCII names, and the pieces that make up each member.

    Raises
    ------
    UsageError
        The archive would reach 4 GiB or 65,535 members, beyond which other readers need the zip64
        form.
    """
    directory: list[bytes] = []
    for name, parts in members:
        raw = name.encode("ascii")
        header = file.tell()
        size = sum(memoryview(part).nbytes for part in parts)
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        if header + size + (1 << 16) >= FULL or len(directory) >= 0xFFFE:
            raise UsageError("the archive would exceed 4 GiB; write .safetensors or .h5 instead")
        padding = 4 + -(header + LOCAL.size + len(raw) + 4) % ALIGNMENT
        common = (0, 0, 0, DATE, crc, size, size, len(raw))  # flags 0, method 0, time 0:00
        file.write(LOCAL.pack(LOCAL_MAGIC, VERSION, *common, padding))
        file.write(raw + struct.pack("<2H", PADDING, padding - 4) + bytes(padding - 4))
        for part in parts:
            file.write(part)
        entry = CENTRAL.pack(CENTRAL_MAGIC, VERSION, VERSION, *common, 0, 0, 0, 0, 0, header)
        directory.append(entry + raw)
    begin, count, listing = file.tell(), len(directory), b"".join(directory)
    file.write(listing)
    file.write(END.pack(END_MAGIC, 0, 0, count, count, len(listing), begin, 0))
