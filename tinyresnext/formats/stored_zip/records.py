"""The fixed records of a zip archive, and reading bytes of one."""

from __future__ import annotations

import struct
from typing import BinaryIO

from ...errors import FormatError

LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7: the local header before the data of a member
CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12: an entry of the central directory
END = struct.Struct("<4s4H2IH")  # 4.3.16: the end record
END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14: the zip64 end record
LOCATOR64 = struct.Struct("<4sIQI")  # 4.3.15: says where the zip64 end record is
LOCAL_MAGIC, CENTRAL_MAGIC, DESCRIPTOR_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"
END_MAGIC, END64_MAGIC, LOCATOR64_MAGIC = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
FULL = 0xFFFFFFFF  # this value in a field means "see the 64-bit field"
DESCRIPTOR, UTF8 = 0x0008, 0x0800  # the two flags that a member may have
DEFLATED = 8  # the number of the compression method


def read_exactly(file: BinaryIO, offset: int, count: int) -> bytes:
    """Return exactly ``count`` bytes at ``offset``."""
    file.seek(offset)
    data = file.read(count)
    if len(data) != count:
        raise FormatError(f"the zip archive is cut short at byte {offset + len(data)}")
    return data


def wide_fields(extra: bytes, values: list[int]) -> list[int]:
    """Replace each field of 0xFFFFFFFF by its 64-bit value in the zip64 block (4.5.3)."""
    missing = values.count(FULL)
    if not missing:
        return values
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<2H", extra)
        if tag == 1 and length == 8 * missing and len(extra) >= 4 + length:
            wide = iter(struct.unpack_from(f"<{missing}Q", extra, 4))
            return [next(wide) if value == FULL else value for value in values]
        extra = extra[4 + length :]
    raise FormatError("the 64-bit size of a zip member is missing")
