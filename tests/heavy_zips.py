"""Zip archives that are heavy to list, or that two readers understand differently."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")


def raw_zip(path: Path, names: Iterable[bytes], data: bytes = b"", deflated: bool = False) -> Path:
    """Write an archive of members with equal content and any names, however many."""
    crc, listing, size, method = zlib.crc32(data), [], len(data), 0
    if deflated:
        pack = zlib.compressobj(1, wbits=-15)
        data, method = pack.compress(data) + pack.flush(), 8
    with open(path, "wb") as file:
        for name in names:
            common = (0, method, 0, 33, crc, len(data), size, len(name), 0)
            listing.append(CENTRAL.pack(b"PK\1\2", 20, 20, *common, 0, 0, 0, 0, file.tell()) + name)
            file.write(LOCAL.pack(b"PK\3\4", 20, *common) + name + data)
        begin = file.tell()
        file.write(b"".join(listing))
        file.write(ends(len(listing), begin, file.tell() - begin))
    return path


def ends(count: int, begin: int, length: int, comment: bytes = b"") -> bytes:
    """Return the end records of a directory."""
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, begin)
    wide += struct.pack("<4sIQI", b"PK\6\7", 0, begin + length, 1)
    few = min(count, 0xFFFF)
    narrow = END.pack(b"PK\5\6", 0, 0, few, few, length, begin, len(comment))
    return (wide if count > few else b"") + narrow + comment


def deep() -> Iterable[bytes]:
    """Return names in 32,760 folders, which a list of all their folders multiplies."""
    return (b"/".join([b"a"] * 32760 + [b"%d.jpg" % i]) for i in range(20))


def many(count: int = 130_000) -> Iterable[bytes]:
    """Return the names of empty images."""
    return (b"a/%d.jpg" % i for i in range(count))


def folders(count: int = 50_000) -> Iterable[bytes]:
    """Return the names of images in a folder each."""
    return (b"%d/a.jpg" % i for i in range(count))


def splits(count: int = 3_000) -> Iterable[bytes]:
    """Return names in folders that all look like splits, each with one folder in it."""
    return (b"%d%s/%d/b/1.jpg" % (i, word, i) for i in range(count) for word in (b"train", b"test"))


def words(count: int = 8_000) -> Iterable[bytes]:
    """Return names in folders whose name has the word of a split many times."""
    return (b"%d" % i + b"train" * 49 + b"/1.jpg" for i in range(count))


def long_name() -> Iterable[bytes]:
    """Return a name of 60,000 characters."""
    return [b"train" * 12_000 + b"/1.jpg", b"a/1.jpg"]


HEAVY = {
    "deep": (deep, "folders deep"),
    "many": (many, "more members than"),
    "folders": (folders, "more than 2.,... folders"),
    "splits": (splits, "3000 folders for the split"),
    "words": (words, "is empty"),
    "a long name": (long_name, "names of at most"),
}


def two_directories(whole: bytes, other: bytes) -> dict[str, bytes]:
    """Return archives in which readers may find the directory of one or of the other."""
    at = whole.rindex(b"PK\5\6")
    count, _, length, begin = struct.unpack_from("<2H2I", whole, at + 8)
    commented = whole[: at + 20] + struct.pack("<H", len(other)) + other
    short = whole[: at + 20] + struct.pack("<H", len(other) - 1) + other
    second = other.rindex(b"PK\5\6")
    wide = ends(0x10000, begin, length)[:76].replace(
        struct.pack("<2Q", 0x10000, 0x10000), struct.pack("<2Q", count, count)
    )
    shifted = whole[:at] + wide + whole[at:]
    elsewhere = whole[:at] + wide[:56] + bytes(8) + wide[56:] + whole[at:]
    return {
        "an archive in the comment": commented,
        "an archive in a comment that is longer": short,
        "an archive behind it": whole + other,
        "an archive before it": other + whole,
        "an end record behind it": whole + other[second:],
        "a wide record of another length": shifted.replace(
            wide[40:48], struct.pack("<Q", length + 1), 1
        ),
        "a wide record elsewhere": elsewhere,
        "another number of members": whole[: at + 8]
        + struct.pack("<2H", count + 1, count + 1)
        + whole[at + 12 :],
    }
