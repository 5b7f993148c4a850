"""The HDF5 of a model file: laying it out, and finding one's way in a file that nobody vouches for.

HDF5 is a large format, whose files may point at other files and ask for memory, filters and conversions. Hence the HDF5
library is asked only where things lie, over a descriptor that we opened; every number we fetch ourselves. Nothing is
followed, decompressed or converted, and nothing is there but what is expected.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t

from .errors import FormatError, ShapeError, UnsafeError, UsageError, WeightsError
from .files import regular

MOST_TEXT = 32 << 20  # bytes of one attribute; a million labels need some 20 MB
# How the first block begins in the format of HDF5 1.8: 8-byte addresses, no flags; the file begins at byte 0.
SUPERBLOCK = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00" + bytes(8)
LIBRARY_ERRORS = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
_KINDS = {h5g.GroupID: "group", h5d.DatasetID: "dataset"}
AGAIN = "fetch or convert it again"


class Place(NamedTuple):
    """Where a tensor begins in the file, and the digest that is stated for it."""

    offset: int
    sha256: str


class _Sink(io.FileIO):
    """Where the library writes. It crashes some time after a write that fails, so it is not told; `lay_out` raises."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write everything, or note why not."""
        rest = memoryview(data).cast("B")
        try:
            while rest and self.failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or note why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


def lay_out(
    path: str | os.PathLike[str],
    attributes: Mapping[str, str],
    tensors: Mapping[str, np.ndarray],
    sha256: Mapping[str, str],
) -> None:
    """Write into the file at ``path`` in the format of HDF5 1.8, the oldest that has checksums on all but the data.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    options = {"libver": ("v108", "v108"), "locking": False, "alignment_threshold": 1, "alignment_interval": 64}

    def write() -> None:
        with h5py.File(sink, "w", **options) as file:
            for name, text in attributes.items():
                file.attrs.create(name, np.bytes_(text.encode("ascii")))
            for name, array in tensors.items():
                dataset = file.create_dataset(_path(name), data=array, dtype="<f4", track_times=False)
                dataset.attrs.create("sha256", np.bytes_(sha256[name].encode("ascii")))

    # Ctrl-C reaches the main thread alone, and so never the library in the middle of a write.
    with _Sink(path, "r+") as sink, ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(write).result()
        except (OSError, RuntimeError) as error:
            raise sink.failure or OSError(str(error)) from error
        if sink.failure is not None:
            raise sink.failure


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.FileIO]:
    """Open a regular file, once, and name it in every error that leaves the ``with`` block."""
    with regular(path, buffering=0) as file:
        try:
            yield file
        except WeightsError as error:
            raise type(error)(f"{os.fspath(path)}: {error}") from error


def size_of(file: io.FileIO) -> int:
    """How many bytes the file has."""
    return os.fstat(file.fileno()).st_size


@contextmanager
def structure(file: io.FileIO) -> Iterator[h5g.GroupID]:
    """The root group; whatever the library raises on a damaged file becomes a FormatError."""
    file.seek(0)
    head = file.read(48)
    if head[:8] != SUPERBLOCK[:8]:
        checkpoint = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
        what = "not an HDF5 file, but a checkpoint, it seems" if checkpoint else "not an HDF5 file"
        raise FormatError(f"{what}; `tinyresnext convert` makes a model file of a checkpoint")
    if head[:20] != SUPERBLOCK or len(head) < 48:
        raise FormatError("an HDF5 file, but not as tinyresnext writes it; `tinyresnext convert` makes one")
    end = int.from_bytes(head[28:36], "little")
    if end != size_of(file):
        raise FormatError(f"the file has {size_of(file):,} bytes, and its beginning says {end:,}; {AGAIN}")
    try:
        # The library gets our descriptor and not the name. This driver of h5py knows no other file it could open.
        with h5py.File(file, "r", locking=False) as hdf5:
            yield h5g.open(hdf5.id, b"/")
    except (WeightsError, UsageError):
        raise
    except LIBRARY_ERRORS as error:
        raise FormatError(f"the file is damaged, HDF5 says: {error}; {AGAIN}") from None


def texts(owner: h5g.GroupID | h5d.DatasetID, names: Iterable[str], where: str) -> dict[str, str]:
    """The attributes of a group or dataset, which must be just these."""
    names = list(names)
    count = h5a.get_num_attrs(owner)
    missing = [name for name in names if not has(owner, name)]
    if missing or count != len(names):
        raise FormatError(f"{where} has {count} attributes, expected {', '.join(names) or 'none'}; save the model again")
    return {name: text(owner, name) for name in names}


def has(owner: h5g.GroupID | h5d.DatasetID, name: str) -> bool:
    """Whether there is an attribute of that name."""
    return h5a.exists(owner, name.encode())


def text(owner: h5g.GroupID | h5d.DatasetID, name: str) -> str:
    """One attribute, which must be ASCII text of a length that the file states."""
    attribute = h5a.open(owner, name.encode())
    kind, space = attribute.get_type(), attribute.get_space()
    plain = kind.get_class() == h5t.STRING and not kind.is_variable_str() and not kind.committed()
    if not plain or space.get_simple_extent_type() != h5s.SCALAR:
        raise FormatError(f"the attribute {name} is not text of fixed length; save the model again")
    if not 0 < kind.get_size() <= MOST_TEXT:
        raise UnsafeError(f"the attribute {name} has {kind.get_size():,} bytes, expected at most {MOST_TEXT:,}")
    value = np.zeros((), f"S{kind.get_size()}")
    attribute.read(value)
    try:
        return value.tobytes().decode("ascii")
    except UnicodeDecodeError:
        raise FormatError(f"the attribute {name} has bytes that are not ASCII; {AGAIN}") from None


def places(root: h5g.GroupID, shapes: Mapping[str, tuple[int, ...]], size: int) -> dict[str, Place]:
    """Where each tensor lies, after making sure that the file has these, plainly stored, and nothing else.

    Parameters
    ----------
    root : GroupID
    shapes : mapping of str to tuple of int
        What is expected.
    size : int
        Of the file, in bytes.
    """
    tree: dict[str, set[str]] = {"": set()}
    for name in shapes:
        path = _path(name)
        while path:
            parent, _, leaf = path.rpartition("/")
            tree.setdefault(parent, set()).add(leaf)
            path = parent
    groups = {}
    for path in sorted(tree):  # a group comes before what is in it
        groups[path] = _member(groups, tree, path, h5g.GroupID) if path else root
        if path:
            texts(groups[path], (), f"/{path}")
        if groups[path].get_num_objs() != len(tree[path]):
            more = _stranger(groups[path], tree[path])
            raise ShapeError(f"/{path} has {groups[path].get_num_objs()} members, expected {len(tree[path])}{more}")
    found = {}
    for name, shape in shapes.items():
        dataset = _member(groups, tree, _path(name), h5d.DatasetID)
        found[name] = Place(_offset(dataset, name, shape), texts(dataset, ("sha256",), name)["sha256"])
    pieces = sorted((place.offset, place.offset + 4 * math.prod(shapes[name]), name) for name, place in found.items())
    for (_, end, name), (begin, _, other) in pairwise([*pieces, (size, size, "the end of the file")]):
        if end > begin:
            raise UnsafeError(f"{name} lies across {other}; expected each tensor in its own place within the file")
    return found


def fill(file: io.FileIO, offset: int, array: np.ndarray) -> None:
    """Read an array's bytes."""
    file.seek(offset)
    rest = memoryview(array).cast("B")
    while rest:
        count = file.readinto(rest)
        if not count:
            raise FormatError(f"the file ends {len(rest):,} bytes early; {AGAIN}")
        rest = rest[count:]


def _path(name: str) -> str:
    """Where in the file a parameter is."""
    return "params/" + name.replace(".", "/")


def _member(
    groups: Mapping[str, h5g.GroupID], tree: Mapping[str, set[str]], path: str, kind: type
) -> h5g.GroupID | h5d.DatasetID:
    """Open a member of a group that has been opened, if it is in the file itself and of the right kind."""
    parent, _, leaf = path.rpartition("/")
    group, key = groups[parent], leaf.encode()
    if not group.links.exists(key):
        raise ShapeError(f"/{path} is missing{_stranger(group, tree[parent])}; the tensors must be those of the architecture")
    if group.links.get_info(key).type != h5l.TYPE_HARD:
        raise UnsafeError(f"/{path} is a link to elsewhere, expected it in the file itself; do not use files that have links")
    member = h5o.open(group, key)
    if type(member) is not kind:
        found, expected = (_KINDS.get(it, "named type") for it in (type(member), kind))
        raise ShapeError(f"/{path} is a {found}, expected a {expected}; save the model again")
    return member


def _stranger(group: h5g.GroupID, expected: set[str]) -> str:
    """The first member that is not expected, for an error message."""
    names = {name.encode() for name in expected}
    found = h5g.iterate(group, lambda name: None if name in names else name)
    return "" if found is None else f", there is {found.decode(errors='replace')!r:.80}"


def _offset(dataset: h5d.DatasetID, name: str, shape: tuple[int, ...]) -> int:
    """Where the bytes of a dataset lie, if they lie there as they are: float32, in one piece, of the right number."""
    plan = dataset.get_create_plist()  # asked first: nothing else may be asked of a virtual dataset
    if plan.get_layout() != h5d.CONTIGUOUS or plan.get_nfilters() or plan.get_external_count():
        raise UnsafeError(f"{name} is not stored plainly: in pieces, compressed or in other files; save the model again")
    kind, space = dataset.get_type(), dataset.get_space()
    if kind.committed() or not kind.equal(h5t.IEEE_F32LE):
        raise ShapeError(f"{name} is not of type float32, little-endian; save the model again")
    simple = space.get_simple_extent_type() == h5s.SIMPLE
    dims = space.get_simple_extent_dims() if simple else None
    if dims != shape or space.get_simple_extent_dims(True) != shape:
        raise ShapeError(f"{name} has the shape {dims}, the architecture has {shape}; they must be of one model")
    offset = dataset.get_offset()
    if offset is None or dataset.get_storage_size() != 4 * math.prod(shape):
        raise UnsafeError(f"{name} has {dataset.get_storage_size():,} bytes stored, its shape needs {4 * math.prod(shape):,}")
    return offset
