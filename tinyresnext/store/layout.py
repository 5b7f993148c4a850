"""The HDF5 of a model file: laying it out, and finding attributes and tensors in a file that nobody vouches for.

The HDF5 library writes model files, and never reads them: a forged file can crash it, or make it
load programs. Reading is left to `hdf5`, which knows no more of the format than is written here.
Every number of a tensor we fetch ourselves.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..errors import FormatError, ShapeError, UnsafeError, WeightsError
from ..formats.hdf5 import AGAIN, FLOAT16, FLOAT32, Dataset, Group, Hdf5, fill
from ..system.files import regular

MOST_ROOT = 11 << 20  # bytes of the root's attributes; the labels may have 10 MB of them
PIECE = 60_000  # bytes of one attribute; the format has room for 64 KB of name, type and value
MOST_JSON, MOST_LABELS, MOST_LABEL = (
    1 << 16,
    10 << 20,
    256,
)  # bytes of a document, of all labels, and per class
LABEL = re.compile(r'"(?:[^"\\]|\\.)*+"(?:,(?=")|\]\Z)')  # one of them and what follows it
TYPES = {FLOAT32: "<f4", FLOAT16: "<f2"}  # of numbers as they may lie in the file
LARGEST_HALF = 65504
_KINDS = {Group: "group", Dataset: "dataset"}


class Place(NamedTuple):
    """Where a tensor begins in the file, of which type it is there, and the digest that is stated for it."""

    offset: int
    dtype: str
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
    tensors: Iterable[tuple[str, np.ndarray, str]],
    last: str,
    seal: Callable[[], str],
) -> None:
    """Write into the file at ``path`` in the oldest and simplest form of HDF5.

    Parameters
    ----------
    path : path
        An empty file.
    attributes : mapping of str to str
        A text longer than `PIECE` becomes several: ``labels``, ``labels.1``, ``labels.2`` ...
    tensors : iterable of (name, array, sha256)
        Arrays of float32 or float16; each is written before the next is asked for.
    last : str
        Which attribute gets its text only behind the last tensor; what it has until then must be as
        long.
    seal : callable
        Gives that text.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    import h5py  # here, since whoever only reads does without it

    options = {
        "libver": "earliest",
        "locking": False,
        "alignment_threshold": 1,
        "alignment_interval": 64,
    }

    def write() -> None:
        with h5py.File(sink, "w", **options) as file:
            for name, text in attributes.items():
                for key, piece in _pieces(name, text).items():
                    file.attrs.create(key, np.bytes_(piece.encode("ascii")))
            for name, array, sha256 in tensors:
                if sink.failure is not None:
                    return
                dataset = file.create_dataset(_path(name), data=array, track_times=False)
                dataset.attrs.create("sha256", np.bytes_(sha256.encode("ascii")))
                del array  # before the next is read
            file.attrs.modify(last, np.bytes_(seal().encode("ascii")))

    # Ctrl-C reaches the main thread alone, and so never the library in the middle of a write.
    with _Sink(path, "r+") as sink, ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(write).result()
        except (OSError, RuntimeError) as error:
            raise sink.failure or OSError(str(error)) from error
        except KeyboardInterrupt:
            sink.failure = InterruptedError()  # the next tensor is not begun
            raise
        if sink.failure is not None:
            raise sink.failure


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.FileIO]:
    """Open a regular file, once, and name it in every error that leaves the ``with`` block."""
    with regular(path, buffering=0) as file:
        try:
            yield file
        except WeightsError as error:
            # What a forged file says is in the message, but no more than people would read.
            raise type(error)(f"{os.fspath(path)}: {error!s:.400}") from None


def size_of(file: io.FileIO) -> int:
    """How many bytes the file has."""
    return os.fstat(file.fileno()).st_size


def structure(file: io.FileIO) -> Hdf5:
    """The file's superblock and root group."""
    return Hdf5(file, MOST_ROOT)


def texts(attributes: Mapping[str, memoryview], names: Iterable[str], where: str) -> dict[str, str]:
    """The texts in the attributes of a group or dataset, which must have just these."""
    found, left = {}, dict(attributes)
    for name in names:
        keys = [name] * (name in left)
        while keys and (key := f"{name}.{len(keys)}") in left:
            keys.append(key)
        try:
            found[name] = b"".join(left.pop(key) for key in keys).decode("ascii")
        except UnicodeDecodeError:
            raise FormatError(
                f"the attribute {name} has bytes that are not ASCII; {AGAIN}"
            ) from None
        if not keys or list(map(len, _pieces(name, found[name]).values())) != [
            len(attributes[key]) for key in keys
        ]:
            raise FormatError(
                f"{where} has no attribute {name}, or it is not cut as tinyresnext does; save the model again"
            )
    if left:
        expected = ", ".join(found) or "none"
        raise FormatError(
            f"{where} has {len(attributes)} attributes, among them {min(left)!r:.80}, expected {expected}"
        )
    return found


def places(hdf5: Hdf5, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Place]:
    """Where each tensor lies, after making sure that the file has these, plainly stored, and nothing else.

    Parameters
    ----------
    hdf5 : Hdf5
    shapes : mapping of str to tuple of int
        What is expected.
    """
    names = {f"/{_path(name)}": name for name in shapes}
    tree: dict[str, set[str]] = {}
    for path in names:
        while path:
            parent, _, leaf = path.rpartition("/")
            tree.setdefault(parent, set()).add(leaf)
            path = parent
    found: dict[str, Place] = {}
    waiting = [("", hdf5.root)]
    while waiting:
        path, group = waiting.pop()
        for leaf, address in _members(hdf5, group, path, tree[path]):
            kind = Group if (below := f"{path}/{leaf}") in tree else Dataset
            member = hdf5.object(address, below)
            if type(member) is not kind:
                raise ShapeError(
                    f"{below} is a {_KINDS[type(member)]}, expected a {_KINDS[kind]}; save the model again"
                )
            if isinstance(member, Group):
                texts(member.attributes, (), below)
                waiting.append((below, member))
            else:
                found[names[below]] = _place(hdf5, member, names[below], shapes[names[below]])
    return found


def read_into(file: io.FileIO, place: Place, array: np.ndarray) -> None:
    """Read a tensor into an array of the type that it has in the file."""
    fill(file, place.offset, memoryview(array).cast("B"))


def narrowed(array: np.ndarray) -> np.ndarray:
    """A kernel or matrix in half precision, but not one with values that are too large for it or not finite."""
    fits = (
        array.max(initial=0) <= LARGEST_HALF and array.min(initial=0) >= -LARGEST_HALF
    )  # neither is true of a NaN
    return array.astype("<f2") if array.ndim > 1 and fits else array


def widened(array: np.ndarray) -> np.ndarray:
    """As float32: every number of half precision is one of single precision too."""
    with np.errstate(
        invalid="ignore"
    ):  # a signalling NaN becomes a quiet one, and is found like any other
        return array.astype(np.float32, copy=False)


def json_text(value: Any) -> str:
    """The one way in which we write JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_value(name: str, text: str, most: int = MOST_JSON) -> Any:
    """Understand a JSON text: what it means can take thirty times the memory of the text, so that must be short."""
    if len(text) > most:
        raise UnsafeError(
            f"the attribute {name} has {len(text):,} bytes, expected at most {most:,}; write less into it"
        )
    try:
        value = json.loads(text)
        as_written = json_text(value) == text
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the attribute {name} is not JSON that we write: {error}") from None
    if (
        not as_written
    ):  # so a key cannot be there twice, and what was compared by digest is what is understood
        raise FormatError(
            f"the attribute {name} has JSON in another form than tinyresnext writes; save the model again"
        )
    return value


def json_labels(text: str, classes: int) -> list[str]:
    """The labels, which are counted before they are understood."""
    count, at = 0, 1
    while count <= classes and (label := LABEL.match(text, at)):
        count, at = count + 1, label.end()
    if text[0] != "[" or (at != len(text) and count <= classes):
        raise FormatError(
            "labels is not a JSON array of texts as tinyresnext writes it; save the model again"
        )
    if count != classes:
        raise ShapeError(
            f"there are {count}{' or more' * (count > classes)} labels for {classes} classes; give one for each class"
        )
    return json_value("labels", text, min(MOST_JSON + MOST_LABEL * classes, MOST_LABELS))


def _pieces(name: str, text: str) -> dict[str, str]:
    """A text as it is cut over attributes."""
    return {
        f"{name}.{at // PIECE}" if at else name: text[at : at + PIECE]
        for at in range(0, len(text), PIECE)
    }


def _path(name: str) -> str:
    """Where in the file a parameter is."""
    return "params/" + name.replace(".", "/")


def _members(hdf5: Hdf5, group: Group, path: str, expected: set[str]) -> list[tuple[str, int]]:
    """Name and address of a group's members, which must be those that are expected."""
    names, found = {name.encode(): name for name in expected}, {}
    for name, address in hdf5.members(group, path or "/"):
        if name not in names:
            what = f"{name.decode(errors='replace')!r:.80}"
            raise ShapeError(
                f"{path or '/'} has a member {what}; expected the tensors of the architecture and no more"
            )
        found[names[name]] = address
    for name in sorted(expected - found.keys()):
        raise ShapeError(f"{path}/{name} is missing; the tensors must be those of the architecture")
    return list(found.items())


def _place(hdf5: Hdf5, dataset: Dataset, name: str, shape: tuple[int, ...]) -> Place:
    """Where the values of a dataset lie, if it is of a type and shape that it may have, and nothing else lies there."""
    if dataset.datatype not in TYPES:
        raise ShapeError(
            f"{name} is not of type float32 or float16, little-endian; save the model again"
        )
    if dataset.shape != shape:
        raise ShapeError(
            f"{name} has the shape {dataset.shape!s:.80}, the architecture has {shape}; they must be of one model"
        )
    dtype = TYPES[dataset.datatype]
    if dataset.size != (needed := np.dtype(dtype).itemsize * math.prod(shape)):
        raise UnsafeError(
            f"{name} has {dataset.size:,} bytes stored, its shape needs {needed:,}; {AGAIN}"
        )
    hdf5.claim(dataset.offset, dataset.size, name)
    return Place(dataset.offset, dtype, texts(dataset.attributes, ("sha256",), name)["sha256"])
