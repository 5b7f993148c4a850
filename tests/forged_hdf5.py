"""Model files that must be refused for their bytes: cut, or with other values in structures."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import h5py
import hdf5_cases
from hdf5_cases import SCALE, SHIFT, Case, number

from tinyresnext.errors import (
    FormatError,
    IntegrityError,
    ShapeError,
    TinyResNeXtError,
    UnsafeError,
)
from tinyresnext.formats.dtypes import NUMBERS

CASES: dict[str, Case] = {}
case = partial(hdf5_cases.case, CASES)

# The bytes of the file


def patch(
    name: str, error: type[TinyResNeXtError], says: str, change: Callable[[bytes], bytes]
) -> None:
    """Enter a change of the file's bytes."""
    case(name, error, says)(lambda path: path.write_bytes(change(path.read_bytes())))


patch("H-file-empty", FormatError, "not an HDF5 file", lambda data: b"")
patch("H-file-of-8-bytes", FormatError, "not as tinyresnext writes it", lambda data: data[:8])
patch("H-file-of-95-bytes", FormatError, "not as tinyresnext writes it", lambda data: data[:95])
patch("H-file-of-text", FormatError, "not an HDF5 file", lambda data: b"<html>404</html>")
patch("H-file-zip", FormatError, "load_checkpoint reads one", lambda data: b"PK\x03\x04" + data)
patch("H-file-short-of-1", FormatError, "its beginning says", lambda data: data[:-1])
patch("H-file-half", FormatError, "its beginning says", lambda data: data[: len(data) // 2])
patch("H-file-appended", FormatError, "its beginning says", lambda data: data + b"\0")
patch("H-file-twice", FormatError, "its beginning says", lambda data: data + data)
patch(
    "H-file-zeroed-after-the-beginning",
    FormatError,
    "its root",
    lambda data: data[:48] + bytes(len(data) - 48),
)
patch(
    "H-file-zeroed-after-the-superblock",
    FormatError,
    "object header",
    lambda data: data[:96] + bytes(len(data) - 96),
)
patch(
    "H-file-beginning-zeroed", FormatError, "not an HDF5 file", lambda data: bytes(512) + data[512:]
)
patch("H-user-block", FormatError, "not an HDF5 file", lambda data: bytes(512) + data)
# The structures of the file, one by one


def structures(data: bytes) -> dict[str, int]:
    """Return where structures begin: of the file, of /params/bn1, and of bn1.weight in it."""

    def at(address: int) -> int:
        return int.from_bytes(data[address : address + 8], "little")

    with h5py.File(io.BytesIO(data)) as file:
        found = {
            "superblock": 0,
            "root": h5py.h5o.get_info(file.id).addr,
            "weights": file[SCALE].id.get_offset(),
        }
        found |= {
            "group": h5py.h5o.get_info(file["params/bn1"].id).addr,
            "dataset": h5py.h5o.get_info(file[SCALE].id).addr,
        }
    found |= {
        "tree": at(found["group"] + 24),
        "heap": at(found["group"] + 32),
        "attributes": at(found["root"] + 24),
    }
    found |= {"symbols": at(found["tree"] + 32), "names": at(found["heap"] + 24)}
    message = found["dataset"] + 16
    for name in ("dataspace", "datatype", "fill", "layout", "attribute"):
        found[name] = message + 8
        message += 8 + int.from_bytes(data[message + 2 : message + 4], "little")
    return found


def forge(
    name: str, where: str, offset: int, new: bytes | str, error: type[TinyResNeXtError], says: str
) -> None:
    """Add a file with other bytes in a structure; a text means the address of that structure."""

    def change(data: bytes) -> bytes:
        places = structures(data)
        at, fresh = places[where] + offset, number(places[new]) if isinstance(new, str) else new
        assert data[at : at + len(fresh)] != fresh
        return data[:at] + fresh + data[at + len(fresh) :]

    patch(f"H-forged-{where}-{name}", error, says, change)


BEYOND, MOST = number(1 << 40), number(-1)
NOT_OURS, DAMAGED = "not as tinyresnext writes", "fetch or convert it again"
for name, offset, new in [
    ("version-1", 8, b"\1"),
    ("version-2", 8, b"\2"),
    ("version-3", 8, b"\3"),
    ("version-255", 8, b"\xff"),
    ("addresses-of-4-bytes", 13, b"\4"),
    ("lengths-of-4-bytes", 14, b"\4"),
    ("leaves-of-65535", 16, b"\xff\xff"),
    ("nodes-of-0", 18, b"\0\0"),
    ("open-for-writing", 20, b"\1"),
    ("base-address", 24, number(512)),
    ("free-space", 32, number(96)),
    ("driver", 48, number(96)),
    ("name-of-root", 56, number(8)),
    ("root-not-cached", 72, b"\0"),
    ("root-as-link", 72, b"\2"),
]:
    forge(name, "superblock", offset, new, FormatError, NOT_OURS)
for name, offset, new, error, says in [
    ("root-beyond", 64, BEYOND, UnsafeError, "but the file has"),
    ("root-at-the-end-of-numbers", 64, MOST, UnsafeError, "but the file has"),
    ("root-in-the-superblock", 64, number(8), UnsafeError, "lies across the superblock"),
    ("root-is-a-group", 64, "group", FormatError, "is not the group"),
    ("root-is-a-dataset", 64, "dataset", FormatError, "is not the group"),
    ("root-is-a-tree", 64, "tree", FormatError, NOT_OURS),
    ("root-is-data", 64, "weights", FormatError, NOT_OURS),
    ("tree-of-another", 80, "tree", FormatError, "is not the group"),
    ("heap-of-another", 88, "heap", FormatError, "is not the group"),
]:
    forge(name, "superblock", offset, new, error, says)
for name, offset, new, error, says in [
    ("version-0", 0, b"\0", FormatError, NOT_OURS),
    ("version-2", 0, b"OHDR\2", FormatError, NOT_OURS),
    ("one-message-more", 2, b"\7", FormatError, "has 6 messages, and says 7"),
    ("one-message", 2, b"\1", FormatError, "do not fit"),
    ("65535-messages", 2, b"\xff\xff", FormatError, "says 65535"),
    ("no-names", 4, b"\0", UnsafeError, "0 names lead to it"),
    ("4-billion-names", 4, b"\xff" * 4, UnsafeError, "names lead to it"),
    ("empty", 8, b"\0\0", FormatError, "has 0 messages"),
    ("4-GB", 8, b"\xff" * 4, UnsafeError, "longer than tinyresnext writes"),
    ("one-byte-less", 8, b"\xff\0", FormatError, "do not fit"),
    ("in-a-message", 8, b"\x0c\0", FormatError, "do not fit"),
    ("first-size-too-large", 18, b"\xf8\xff", FormatError, "do not fit"),
    ("first-size-odd", 18, b"\7\0", FormatError, "do not fit"),
    ("first-size-0", 18, b"\0\0", FormatError, ""),
    ("flag-shared", 20, b"\2", FormatError, "with flags 2"),
    ("flag-unknown", 20, b"\x80", FormatError, "with flags 128"),
    ("reserved", 21, b"\1", FormatError, "do not fit"),
    ("two-dataspaces", 48, b"\1\0", FormatError, "message of type 1"),
]:
    forge(name, "dataset", offset, new, error, says)
for kind in (0x02, 0x06, 0x0A):  # links of newer formats
    forge(f"{kind:#x}", "fill", -8, bytes([kind, 0]), UnsafeError, "may have links")
for kind in (0x07, 0x0B):  # external files, filters
    forge(f"{kind:#x}", "fill", -8, bytes([kind, 0]), UnsafeError, "not stored plainly")
for kind in (0x04, 0x09, 0x0D, 0x0E, 0x0F, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x18, 0xFF):
    forge(f"{kind:#x}", "fill", -8, bytes([kind, 0]), FormatError, "")
for name, where, offset, new, error, says in [
    ("missing", "fill", -8, b"\0\0\x08\0\0", FormatError, "its messages are 1, 3, 8"),
    ("of-another-value", "fill", 4, b"\4", UnsafeError, "not stored plainly"),
    ("version-2", "dataspace", 0, b"\2", ShapeError, "has the shape None"),
    ("rank-0", "dataspace", 1, b"\0", ShapeError, "has the shape None"),
    ("rank-255", "dataspace", 1, b"\xff", ShapeError, "has the shape None"),
    ("no-limit-stated", "dataspace", 2, b"\0", ShapeError, "has the shape None"),
    ("permuted", "dataspace", 2, b"\3", ShapeError, "has the shape None"),
    ("endless", "dataspace", 8, MOST, ShapeError, "has the shape None"),
    ("endless-both", "dataspace", 8, MOST * 2, ShapeError, "has the shape (18446744073709551615,)"),
    ("unlimited", "dataspace", 16, MOST, ShapeError, "has the shape None"),
    ("no-values", "dataspace", 8, bytes(16), ShapeError, "has the shape (0,)"),
    ("other-class", "datatype", 0, b"\x10", ShapeError, "not of type float32"),
    ("version-3", "datatype", 0, b"\x31", ShapeError, "not of type float32"),
    ("big-endian", "datatype", 1, b"\x21", ShapeError, "not of type float32"),
    ("sign-elsewhere", "datatype", 2, b"\x1e", ShapeError, "not of type float32"),
    ("8-bytes", "datatype", 4, b"\x08", ShapeError, "not of type float32"),
    ("other-bias", "datatype", 20, b"\x7e", ShapeError, "not of type float32"),
    ("version-1", "layout", 0, b"\1", UnsafeError, "not stored plainly"),
    ("version-4", "layout", 0, b"\4", UnsafeError, "not stored plainly"),
    ("compact", "layout", 1, b"\0", UnsafeError, "not stored plainly"),
    ("chunked", "layout", 1, b"\2", UnsafeError, "not stored plainly"),
    ("virtual", "layout", 1, b"\3", UnsafeError, "not stored plainly"),
    ("address-none", "layout", 2, MOST, UnsafeError, "but the file has"),
    ("address-beyond", "layout", 2, BEYOND, UnsafeError, "but the file has"),
    (
        "address-of-the-superblock",
        "layout",
        2,
        number(0),
        UnsafeError,
        "lies across the superblock",
    ),
    (
        "address-of-its-header",
        "layout",
        2,
        "dataset",
        UnsafeError,
        "lies across /params/bn1/weight",
    ),
    (
        "address-of-its-group",
        "layout",
        2,
        "names",
        UnsafeError,
        "lies across the names of /params/bn1",
    ),
    ("address-of-the-texts", "layout", 2, "attributes", UnsafeError, "lies across the header of /"),
    ("size-0", "layout", 10, number(0), UnsafeError, "0 bytes stored"),
    ("size-less", "layout", 10, number(255), UnsafeError, "255 bytes stored"),
    ("size-endless", "layout", 10, MOST, UnsafeError, "bytes stored"),
    ("version-3", "attribute", 0, b"\3", FormatError, "not text of fixed length"),
    ("name-of-0", "attribute", 2, b"\0", FormatError, ""),
    ("name-of-64-KB", "attribute", 2, b"\xff\xff", FormatError, "not text of fixed length"),
    ("name-without-end", "attribute", 14, b"s", FormatError, "is not as tinyresnext writes it"),
    ("name-ends-early", "attribute", 10, b"\0", FormatError, "is not as tinyresnext writes it"),
    ("name-not-ascii", "attribute", 10, b"\xff", FormatError, "is not as tinyresnext writes it"),
    ("name-in-capitals", "attribute", 8, b"SHA", FormatError, "no attribute sha256"),
    ("type-of-64-KB", "attribute", 4, b"\xff\xff", FormatError, "not text of fixed length"),
    ("space-of-64-KB", "attribute", 6, b"\xff\xff", FormatError, "not text of fixed length"),
    ("of-any-length", "attribute", 16, b"\x19", FormatError, "not text of fixed length"),
    ("utf8", "attribute", 17, b"\x11", FormatError, "not text of fixed length"),
    ("size-0", "attribute", 20, b"\0", FormatError, "has 0 bytes in a message"),
    ("size-4-GB", "attribute", 20, b"\xff" * 4, FormatError, "in a message of 96"),
    ("an-array", "attribute", 25, b"\1", FormatError, "not text of fixed length"),
    ("value-not-ascii", "attribute", 32, b"\xff", FormatError, "not ASCII"),
    ("value-with-nul", "attribute", 32, b"\0", IntegrityError, "the model has the sha256"),
    ("signature", "heap", 0, b"FRHP", FormatError, NOT_OURS),
    ("version-1", "heap", 4, b"\1", FormatError, NOT_OURS),
    ("size-0", "heap", 8, number(0), FormatError, "members not as"),
    ("size-endless", "heap", 8, MOST, FormatError, NOT_OURS),
    ("size-over-others", "heap", 8, number(60_000), UnsafeError, "lies across"),
    ("names-beyond", "heap", 24, BEYOND, UnsafeError, "but the file has"),
    ("names-are-the-heap", "heap", 24, "heap", UnsafeError, "lies across the heap of /params/bn1"),
    ("names-are-the-tree", "heap", 24, "root", UnsafeError, "lies across /"),
    ("other-name", "names", 16, b"Bias", ShapeError, "has a member 'Bias'"),
    ("slash", "names", 16, b"b/as", FormatError, "members not as"),
    ("no-letters", "names", 16, b"\0", FormatError, "members not as"),
    ("nul-within", "names", 18, b"\0", ShapeError, "has a member 'bi'"),
    ("escape-sequence", "names", 16, b"\x1b[2J", ShapeError, r"has a member '\x1b[2J'"),
    ("signature", "tree", 0, b"BTHD", FormatError, NOT_OURS),
    ("of-chunks", "tree", 4, b"\1", FormatError, NOT_OURS),
    ("level-1", "tree", 5, b"\1", FormatError, NOT_OURS),
    ("level-255", "tree", 5, b"\xff", FormatError, NOT_OURS),
    ("empty", "tree", 6, b"\0", FormatError, NOT_OURS),
    ("33-children", "tree", 6, b"\x21", FormatError, NOT_OURS),
    ("32-children", "tree", 6, b"\x20", UnsafeError, "lies across the superblock"),
    ("child-is-itself", "tree", 32, "tree", UnsafeError, "lies across the B-tree of /params/bn1"),
    ("child-is-a-group", "tree", 32, "group", UnsafeError, "lies across /params/bn1"),
    ("child-beyond", "tree", 32, BEYOND, UnsafeError, "but the file has"),
    ("child-is-data", "tree", 32, "weights", FormatError, NOT_OURS),
    ("signature", "symbols", 0, b"TREE", FormatError, NOT_OURS),
    ("version-2", "symbols", 4, b"\2", FormatError, NOT_OURS),
    ("empty", "symbols", 6, b"\0", FormatError, NOT_OURS),
    ("one-less", "symbols", 6, b"\3", ShapeError, "is missing"),
    ("one-more", "symbols", 6, b"\5", FormatError, "members not as"),
    ("9-members", "symbols", 6, b"\x09", FormatError, NOT_OURS),
    ("65535-members", "symbols", 6, b"\xff\xff", FormatError, NOT_OURS),
    ("name-outside", "symbols", 8, number(10_000), FormatError, "members not as"),
    ("name-at-the-end-of-numbers", "symbols", 8, MOST, FormatError, "members not as"),
    ("name-twice", "symbols", 48, number(16), FormatError, "members not as"),
    ("object-beyond", "symbols", 16, BEYOND, UnsafeError, "but the file has"),
    ("object-is-its-group", "symbols", 16, "group", UnsafeError, "lies across /params/bn1"),
    ("object-is-the-root", "symbols", 16, "root", UnsafeError, "lies across /"),
    ("object-twice", "symbols", 16, "dataset", UnsafeError, "lies across /params/bn1/bias"),
    ("object-is-data", "symbols", 16, "weights", FormatError, NOT_OURS),
    ("link", "symbols", 24, b"\2", UnsafeError, "member that is a link"),
    ("kind-3", "symbols", 24, b"\3", FormatError, "members not as"),
    ("reserved", "symbols", 28, b"\1", FormatError, "members not as"),
    ("tree-beyond", "group", 24, BEYOND, UnsafeError, "but the file has"),
    ("tree-is-itself", "group", 24, "group", UnsafeError, "lies across /params/bn1"),
    ("heap-is-its-tree", "group", 32, "tree", FormatError, NOT_OURS),
    ("continued-in-itself", "root", 24, "root", UnsafeError, "lies across /"),
    ("continued-beyond", "root", 24, BEYOND, UnsafeError, "but the file has"),
    ("continued-endlessly", "root", 32, MOST, UnsafeError, "longer than tinyresnext writes"),
    ("continued-by-nothing", "root", 32, number(0), FormatError, "has 1 messages, and says 10"),
    ("continued-in-data", "root", 24, "weights", FormatError, ""),
    (
        "continued-in-a-text",
        "attributes",
        0,
        b"\x10\0\x10\0" + bytes(4),
        UnsafeError,
        "lies across",
    ),
]:
    forge(name, where, offset, new, error, says)


HALF = NUMBERS["F16"].hdf5
forge("called-half", "datatype", 0, HALF, UnsafeError, "256 bytes stored, its shape needs 128")


@case("H-forged-tensors-share-data", UnsafeError, "lies across")
def _(path):
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at, other = h5py.h5o.get_info(file[SHIFT].id).addr, file[SCALE].id.get_offset()
    at = data.find(b"\3\1", at + 100)
    data[at + 2 : at + 10] = number(other)
    path.write_bytes(data)


@case("H-forged-tensors-share-a-few-bytes", UnsafeError, "lies across")
def _(path):
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at, other = h5py.h5o.get_info(file[SHIFT].id).addr, file[SCALE].id.get_offset()
    at = data.find(b"\3\1", at + 100)
    data[at + 2 : at + 10] = number(other + 252)
    path.write_bytes(data)
