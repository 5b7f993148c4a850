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
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, IntegrityError, UnsafeError, UsageError
from ..system.files import regular, shown
from .dataset import Dataset

__all__ = ["open_idx", "read_idx"]

_SPLITS = {"train": "train", "test": "t10k"}
_BYTES = 8  # the type of unsigned bytes
_DEFLATE_LIMIT = 1032  # one byte of deflate becomes at most this many bytes
_MAX_VALUES = 4 << 30
_CHUNK = 1 << 20


def open_idx(path: Path, split: str) -> Dataset | None:
    """Open the data set in a folder, or in a folder ``raw`` in it; return None if there is none.

    Raises the errors of `data.open_dataset`.
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
        name: read_idx(file, dimensions=1) for name, file in labels.items() if file is not None
    }
    pixels = read_idx(image_file, dimensions=3)[..., np.newaxis]
    if len(pixels) != len(known[split]) or not len(pixels):
        raise FormatError(
            f"{shown(image_file)} has {len(pixels)} images and {shown(label_file)} "
            f"{len(known[split])} labels; the two do not belong together"
        )
    # The classes of both splits, so that these agree.
    count = 1 + max(int(values.max(initial=0)) for values in known.values())
    names = [f"{_SPLITS[split]}/{i}" for i in range(len(pixels))]
    return Dataset(
        tuple(map(str, range(count))),
        known[split].astype(np.int64),
        names,
        pixels.__getitem__,
        pixels,
    )


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read the values of an idx file of unsigned bytes.

    Raises
    ------
    FormatError
        The file is no idx file of that many dimensions, or its length is not what its header says.
    UnsafeError
        Its header claims more than the file can hold; raised before memory is allocated.
    IntegrityError
        The checksum of gzip is wrong.
    """
    with regular(path) as file:
        packed = os.fstat(file.fileno()).st_size
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = gzip.GzipFile(fileobj=file) if is_gzip else file
        try:
            return _read(
                source, packed * _DEFLATE_LIMIT if is_gzip else packed, dimensions, shown(path)
            )
        except EOFError:
            raise FormatError(f"{shown(path)} is cut short; get it again") from None
        except gzip.BadGzipFile as error:
            raise IntegrityError(f"{shown(path)} is damaged: {error}; get it again") from error
        except zlib.error as error:
            raise FormatError(f"{shown(path)} is damaged: {error}; get it again") from error


def _read(
    source: BinaryIO | gzip.GzipFile, most: int, dimensions: int, name: str
) -> NDArray[np.uint8]:
    """Read header and values; `most` is an upper limit of the values that the file can hold."""
    length = 4 + 4 * dimensions
    header = source.read(length)
    if len(header) < length or header[:2] != b"\0\0":
        raise FormatError(
            f"{name} is no idx file: it begins with {header[:4].hex(' ') or 'nothing'}"
        )
    if header[2] != _BYTES or header[3] != dimensions:
        raise FormatError(
            f"{name} has values of type 0x{header[2]:02x} in {header[3]} dimensions; "
            f"expected unsigned bytes (0x08) in {dimensions}"
        )
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, length, 4))
    count = math.prod(shape)
    if count > min(most, _MAX_VALUES):
        raise UnsafeError(
            f"{name} claims {count:,} values ({' x '.join(map(str, shape))}), "
            "more than its file can hold"
        )
    parts, missing = [], count + 1
    while missing and (data := source.read(min(missing, _CHUNK))):
        parts.append(data)
        missing -= len(data)
    if missing != 1:
        found = "more" if not missing else f"{count + 1 - missing:,}"
        raise FormatError(
            f"{name} should have {count:,} values ({' x '.join(map(str, shape))}) "
            f"and has {found}; get it again"
        )
    return np.frombuffer(b"".join(parts), np.uint8).reshape(shape)


def _find(folder: Path, start: str, dimensions: int) -> Path | None:
    """Return the file under one of the usual names, or None."""
    for dot in ("-", "."):
        for ending in ("", ".gz"):
            file = folder / f"{start}{dot}idx{dimensions}-ubyte{ending}"
            if os.path.isfile(file):
                return file
    return None
