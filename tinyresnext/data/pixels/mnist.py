"""MNIST and the data sets that are published in its format, "idx".

The format is described by LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/. A file is a
magic number (two zero bytes, a type, the number of dimensions), the dimensions as big-endian 32-bit
numbers, and the values. Images and labels are in two files, compressed with gzip or not.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, IntegrityError, UnsafeError, UsageError
from ...system.files import regular, shown
from ..dataset import Dataset

__all__ = ["open_idx"]

_SPLITS = {"train": "train", "test": "t10k"}
_BYTES = 8  # the type of unsigned bytes
_DEFLATE_LIMIT = 1032  # one byte of deflate becomes at most this many bytes
_MAX_VALUES = 4 << 30
_MAX_IMAGES = 1 << 24
_LARGE = 64 << 20  # bytes: what gzip unpacks to more is read twice, first to check it
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Idx:
    """An idx file, and the shape that its header says."""

    path: Path
    shape: tuple[int, ...]


class _Names(Sequence[str]):
    """The names of numbered images, each made when it is asked for."""

    def __init__(self, split: str, count: int) -> None:
        self._split, self._count = split, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [f"{self._split}/{k}" for k in range(self._count)[i]]
        return f"{self._split}/{range(self._count)[i]}"


def open_idx(path: Path, split: str) -> Dataset | None:
    """Open the data set in a folder, or in a folder ``raw`` in it; return None if there is none.

    The headers of all files are compared before the values of any are read. Raises the errors of
    `data.open_dataset`.
    """
    for folder in (path, path / "raw"):
        labels = {name: _find(folder, f"{start}-labels", 1) for name, start in _SPLITS.items()}
        images = {name: _find(folder, f"{start}-images", 3) for name, start in _SPLITS.items()}
        if any(images.values()):
            break
    else:
        return None
    if split not in _SPLITS:
        raise UsageError(
            f"{shown(folder)} is in the format of MNIST, which has no split {split!r}; "
            "it has train and test"
        )
    image_file, label_file = images[split], labels[split]
    if image_file is None or label_file is None:
        what = "images-idx3" if image_file is None else "labels-idx1"
        raise FormatError(
            f"{shown(folder)} has no {_SPLITS[split]}-{what}-ubyte or the same with .gz; "
            "put it there"
        )
    known = {
        name: read_header(file, dimensions=1) for name, file in labels.items() if file is not None
    }
    pictures = read_header(image_file, dimensions=3)
    count = pictures.shape[0]
    if count != known[split].shape[0] or not math.prod(pictures.shape):
        raise FormatError(
            f"{shown(image_file)} has {' x '.join(map(str, pictures.shape))} values and "
            f"{shown(label_file)} {known[split].shape[0]} labels; the two do not belong together"
        )
    values = {name: read_idx(file) for name, file in known.items()}
    pixels = read_idx(pictures)[..., np.newaxis]
    # The classes of both splits, so that these agree.
    classes = 1 + max(int(some.max(initial=0)) for some in values.values())
    return Dataset(
        tuple(map(str, range(classes))),
        values[split].astype(np.int64),
        _Names(_SPLITS[split], count),
        pixels.__getitem__,
        pixels,
    )


def read_header(path: Path, dimensions: int) -> Idx:
    """Read the shape of an idx file of unsigned bytes.

    Raises
    ------
    FormatError
        The file is no idx file of that many dimensions.
    UnsafeError
        Its header claims more than the file can hold.
    """
    length = 4 + 4 * dimensions
    with _opened(path) as (source, most):
        header = source.read(length)
    if len(header) < length or header[:2] != b"\0\0":
        raise FormatError(
            f"{shown(path)} is no idx file: it begins with {header[:4].hex(' ') or 'nothing'}"
        )
    if header[2] != _BYTES or header[3] != dimensions:
        raise FormatError(
            f"{shown(path)} has values of type 0x{header[2]:02x} in {header[3]} dimensions; "
            f"expected unsigned bytes (0x08) in {dimensions}"
        )
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, length, 4))
    if math.prod(shape) > min(most, _MAX_VALUES) or shape[0] > _MAX_IMAGES:
        raise UnsafeError(
            f"{shown(path)} claims {math.prod(shape):,} values ({' x '.join(map(str, shape))}), "
            f"more than its file can hold, or than {_MAX_IMAGES:,} images"
        )
    return Idx(path, shape)


def read_idx(idx: Idx) -> NDArray[np.uint8]:
    """Read the values of an idx file.

    Raises
    ------
    FormatError
        Its length is not what its header says.
    IntegrityError
        The checksum of gzip is wrong.
    """
    count = math.prod(idx.shape)
    if count > _LARGE:
        _fill(idx, count, None)
    values = np.empty(count, np.uint8)
    _fill(idx, count, values.data)
    return values.reshape(idx.shape)


def _fill(idx: Idx, count: int, values: memoryview | None) -> None:
    """Read the values into a buffer, or only read them if there is none."""
    scratch = memoryview(bytearray(_CHUNK if values is None else 1))
    with _opened(idx.path) as (source, _):
        source.read(4 + 4 * len(idx.shape))
        done = 0
        while done < count:
            piece = scratch[: count - done] if values is None else values[done : done + _CHUNK]
            got = source.readinto(piece)
            if not got:
                break
            done += got
        if done < count or source.read(1):  # reading to the end compares gzip's checksum
            found = "more" if done == count else f"{done:,}"
            raise FormatError(
                f"{shown(idx.path)} should have {count:,} values "
                f"({' x '.join(map(str, idx.shape))}) and has {found}; get it again"
            )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[gzip.GzipFile, int]]:
    """Yield the file, unpacked, and how many bytes it can have at most."""
    with regular(path) as file:
        packed = os.fstat(file.fileno()).st_size
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        # Both have `read` and `readinto`.
        source = gzip.GzipFile(fileobj=file) if is_gzip else cast(gzip.GzipFile, file)
        try:
            yield source, packed * _DEFLATE_LIMIT if is_gzip else packed
        except EOFError:
            raise FormatError(f"{shown(path)} is cut short; get it again") from None
        except gzip.BadGzipFile as error:
            raise IntegrityError(f"{shown(path)} is damaged: {error}; get it again") from error
        except zlib.error as error:
            raise FormatError(f"{shown(path)} is damaged: {error}; get it again") from error


def _find(folder: Path, start: str, dimensions: int) -> Path | None:
    """Return the file under one of the usual names, or None."""
    for dot in ("-", "."):
        for ending in ("", ".gz"):
            file = folder / f"{start}{dot}idx{dimensions}-ubyte{ending}"
            if os.path.isfile(file):
                return file
    return None
