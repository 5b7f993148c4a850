"""Finding attributes and tensors in a model file that may be forged.

`tinyresnext.formats.hdf5.own` reads the HDF5; it accepts no more of the format than `layout`
writes. The numbers of the tensors are read here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import FormatError, ShapeError, UnsafeError, WeightsError
from ..formats.dtypes import BY_HDF5
from ..formats.hdf5.form import AGAIN
from ..formats.hdf5.own import Dataset, Group, Hdf5
from ..network.plan.quantised import joined
from ..system.files import fill, regular, shown
from .layout import path_of, split

__all__ = ["Place", "opened", "places", "read", "size_of", "structure", "texts"]

MOST_ROOT = 14 << 20  # bytes of the root's attributes: the labels may have 10 MB, the scales 3
STORED = ("F32", "F16")  # the types of numbers that a model file may have
INTEGERS = ("I8",)  # those of the quantised weights
_KINDS = {Group: "group", Dataset: "dataset"}


class Place(NamedTuple):
    """Where a tensor begins in the file, its type there, and the digest that is stated for it.

    ``scale`` is the place of the scales of a quantised weight, one float32 for each filter.
    """

    offset: int
    dtype: str
    sha256: str
    scale: int | None = None


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file, once, and name it in every error that leaves the ``with`` block."""
    _check_no_folder(path)
    with regular(path, buffering=0) as file:
        try:
            yield file
        except WeightsError as error:
            # A forged file can put a long text into the message, so truncate it.
            raise type(error)(f"{shown(path)}: {error!s:.400}") from None


def _check_no_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder, such as that of a run, and name the model files in it."""
    if not isinstance(path, str | os.PathLike) or not os.path.isdir(path):
        return  # a number would name a folder that is open
    try:
        inside = sorted(name for name in os.listdir(path) if name.endswith((".h5", ".hdf5")))
    except OSError:  # it cannot be read
        return
    which = ", ".join(shown(os.path.join(path, name)) for name in inside[:3]) or "a file"
    raise FormatError(f"{shown(path)} is a folder, and a model is a file in it; name it: {which}")


def size_of(file: BinaryIO) -> int:
    """Return how many bytes the file has."""
    return os.fstat(file.fileno()).st_size


def structure(file: BinaryIO) -> Hdf5:
    """Read the file's superblock and root group."""
    return Hdf5(file, MOST_ROOT)


def texts(attributes: Mapping[str, memoryview], names: Iterable[str], where: str) -> dict[str, str]:
    """Return the texts in the attributes of a group or dataset, which must have exactly these."""
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
        lengths = [len(piece) for piece in split(name, found[name]).values()]
        if not keys or lengths != [len(attributes[key]) for key in keys]:
            raise FormatError(
                f"{where} has no attribute {name}, or it is not divided as tinyresnext does it; "
                "save the model again"
            )
    if left:
        expected = ", ".join(found) or "none"
        raise FormatError(
            f"{where} has {len(attributes)} attributes, among them {min(left)!r:.80}, expected "
            f"{expected}"
        )
    return found


def places(
    hdf5: Hdf5, shapes: Mapping[str, tuple[int, ...]], integers: Mapping[str, str] | None = None
) -> dict[str, Place]:
    """Return where each tensor lies.

    The file must have exactly these tensors, plainly stored, and nothing else.

    Parameters
    ----------
    hdf5 : Hdf5
    shapes : mapping of str to tuple of int
        What is expected.
    integers : mapping of str to str, optional
        The quantised weights, and the name of the tensor with the scales of each.

    Raises
    ------
    FormatError, ShapeError, UnsafeError
        The file has other tensors, or stores them in another form.
    """
    names = {f"/{path_of(name)}": name for name in shapes}
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
                    f"{below} is a {_KINDS[type(member)]}, expected a {_KINDS[kind]}; save the "
                    "model again"
                )
            if isinstance(member, Group):
                texts(member.attributes, (), below)
                waiting.append((below, member))
            else:
                name = names[below]
                types = INTEGERS if name in (integers or {}) else STORED
                found[name] = _place(hdf5, member, name, shapes[name], types)
    for name, scale in (integers or {}).items():
        if found[scale].dtype != "<f4":
            raise ShapeError(f"{scale} is not of type float32; save the model again")
        found[name] = found[name]._replace(scale=found[scale].offset)
    return found


def read(file: BinaryIO, place: Place, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Read a tensor: in the type that it has in the file, or as float32 if that is int8."""
    array = np.empty(shape, place.dtype)
    fill(file, place.offset, array.data.cast("B"), name)
    if place.scale is None:
        return array
    scale = np.empty(shape[:1], "<f4")
    fill(file, place.scale, scale.data.cast("B"), name)
    return joined(array, scale)


def _members(hdf5: Hdf5, group: Group, path: str, expected: set[str]) -> list[tuple[str, int]]:
    """Return name and address of a group's members, which must be those that are expected."""
    names = {name.encode(): name for name in expected}
    found: dict[str, int] = {}
    for raw, address in hdf5.members(group, path or "/"):
        if raw not in names:
            what = f"{raw.decode(errors='replace')!r:.80}"
            raise ShapeError(
                f"{path or '/'} has a member {what}; expected the tensors of the architecture and "
                "no more"
            )
        found[names[raw]] = address
    for name in sorted(expected - found.keys()):
        raise ShapeError(f"{path}/{name} is missing; the tensors must be those of the architecture")
    return list(found.items())


def _place(
    hdf5: Hdf5, dataset: Dataset, name: str, shape: tuple[int, ...], types: tuple[str, ...]
) -> Place:
    """Return where the values of a dataset lie, before anything is allocated or read for them.

    **The rule that stops a dataset of 4 TB**: the architecture says how large a tensor is, and the
    file can only agree.

    1. The shape is that of the architecture, whose weights have at most `contents.MOST_WEIGHTS`
       bytes and no more than the file can have (`reading.contents_of`).
    2. The dataset has exactly the bytes that this shape needs.
    3. These bytes lie in the file and belong to nothing else (`claim` of `formats.hdf5.walker`).
    """
    number = BY_HDF5.get(dataset.datatype)
    if number is None or number.name not in types:
        expected = "int8" if types == INTEGERS else "float32 or float16, little-endian"
        raise ShapeError(f"{name} is not of type {expected}; save the model again")
    if dataset.shape != shape:
        raise ShapeError(
            f"{name} has the shape {dataset.shape!s:.80}, the architecture has {shape}; they must "
            "be of one model"
        )
    if dataset.size != (needed := number.itemsize * math.prod(shape)):
        raise UnsafeError(
            f"{name} has {dataset.size:,} bytes stored, its shape needs {needed:,}; {AGAIN}"
        )
    hdf5.claim(dataset.offset, dataset.size, name)
    sha256 = texts(dataset.attributes, ("sha256",), name)["sha256"]
    return Place(dataset.offset, number.dtype, sha256)
