"""CIFAR-10 and CIFAR-100 as published, packed or unpacked.

Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html. The "python version" consists of
pickles, which `formats.pickle` reads without running code. The "binary version" consists of records
of one label (CIFAR-10) or a coarse and a fine label (CIFAR-100) and 3,072 bytes: a red, a green and
a blue plane of 32 x 32.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, TinyResNeXtError, UnsafeError, UsageError
from ...formats.pickle.arrays import UInt8Array, uint8_arrays
from ...formats.pickle.machine import load
from ...formats.tar import MAX_PART, read_tar
from ...system.files import regular, shown
from ..dataset import Dataset

__all__ = ["open_cifar_archive", "open_cifar_folder"]

_SIDE, _PIXELS = 32, 3 * 32 * 32
_MAX_CLASSES = 256  # a label is a byte


@dataclass(frozen=True)
class _Version:
    """One of the four published archives.

    It has the name of its folder, the files of each split, the files with the names of the classes,
    and whether each image has a fine and a coarse label.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: tuple[str, ...]
    fine_and_coarse: bool

    @property
    def binary(self) -> bool:
        """Whether this is a binary version."""
        return self.test[0].endswith(".bin")

    def split(self, name: str) -> tuple[str, ...]:
        """Return the files of a split."""
        return self.train if name == "train" else self.test


_VERSIONS = (
    _Version(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        ("test_batch",),
        ("batches.meta",),
        False,
    ),
    _Version(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
        ("batches.meta.txt",),
        False,
    ),
    _Version("cifar-100-python", ("train",), ("test",), ("meta",), True),
    _Version(
        "cifar-100-binary",
        ("train.bin",),
        ("test.bin",),
        ("fine_label_names.txt", "coarse_label_names.txt"),
        True,
    ),
)


def open_cifar_archive(path: Path, split: str, coarse: bool) -> Dataset:
    """Open a ``.tar.gz`` (or ``.tar``) as published. Errors are those of `data.open_dataset`."""
    _check_split(split, path)
    with _naming(path), regular(path) as file:
        files = read_tar(
            file, {name for version in _VERSIONS for name in (*version.split(split), *version.meta)}
        )
    for version in _VERSIONS:
        if all(name in files for name in version.meta):
            return _dataset(files, version, split, coarse, path)
    raise FormatError(
        f"{shown(path)} has no CIFAR-10 or CIFAR-100 in it "
        f"(no file {', '.join(version.meta[0] for version in _VERSIONS)}); "
        "give an archive as published, a folder or an archive of images, or, for MNIST, the folder "
        "that its archive unpacks to"
    )


def open_cifar_folder(path: Path, split: str, coarse: bool) -> Dataset | None:
    """Open the folder of an unpacked archive, or the folder around it.

    Returns None if there is no CIFAR in it; other errors are those of `data.open_dataset`.
    """
    for version in _VERSIONS:
        for folder in (path, path / version.folder):
            if all(os.path.isfile(folder / name) for name in version.meta):
                _check_split(split, folder)
                names = [
                    name
                    for name in (*version.split(split), *version.meta)
                    if os.path.isfile(folder / name)
                ]
                return _dataset(
                    {name: _read(folder / name) for name in names}, version, split, coarse, folder
                )
    return None


def _check_split(split: str, path: Path) -> None:
    """Raise `UsageError` for a split that CIFAR does not have."""
    if split not in ("train", "test"):
        raise UsageError(
            f"{shown(path)} is CIFAR, which has no split {split!r}; it has train and test"
        )


@contextmanager
def _naming(path: Path, part: str = "") -> Iterator[None]:
    """Put the name of the file in front of any error that is raised inside."""
    try:
        yield
    except TinyResNeXtError as error:
        if shown(path) in str(error):
            raise
        raise type(error)(f"{shown(path)}{part and f' ({part})'}: {error}") from error


def _read(path: Path) -> bytes:
    """Read a whole file of an unpacked archive."""
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_PART:
            raise UnsafeError(
                f"{shown(path)} has {size:,} bytes, more than the {MAX_PART:,} that are accepted"
            )
        return file.read(MAX_PART)


def _dataset(
    files: dict[str, bytes], version: _Version, split: str, coarse: bool, path: Path
) -> Dataset:
    """Build the data set of one split. Each file is released as soon as it is converted."""
    if coarse and not version.fine_and_coarse:
        raise UsageError(
            f"{shown(path)} is CIFAR-10, which has no coarse classes; only CIFAR-100 has"
        )
    names = version.split(split)
    for name in names:
        if name not in files:
            raise FormatError(
                f"{shown(path)} has no file {name}; get the archive again and unpack all of it"
            )
    which = version.meta[-1 if version.binary and coarse else 0]
    with _naming(path, which):
        classes = _class_names(files[which], version, coarse)
    pixels, labels, called = [], [], []
    for name in names:
        with _naming(path, name):
            read = _read_records if version.binary else _read_pickle
            planes, some, more = read(files.pop(name), version, coarse, name)
            if some.max() >= len(classes) or some.min() < 0:
                raise FormatError(
                    f"a label is {some.max()}, but there are {len(classes)} classes, from 0 on"
                )
        pixels.append(
            np.ascontiguousarray(planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        )
        labels.append(some)
        called += more
    block = pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
    return Dataset(classes, np.concatenate(labels), called, block.__getitem__, block)


def _class_names(data: bytes, version: _Version, coarse: bool) -> tuple[str, ...]:
    """Read the names in a meta file: lines of text, or a list in a pickle."""
    if version.binary:
        names: object = [
            line.strip() for line in data.decode("latin-1").splitlines() if line.strip()
        ]
    else:
        key = (
            "label_names"
            if not version.fine_and_coarse
            else "coarse_label_names"
            if coarse
            else "fine_label_names"
        )
        names = _pickled(data, key)[key]
    if (
        isinstance(names, list)
        and all(type(name) is str and name.isprintable() and len(name) <= 100 for name in names)
        and 1 <= len(names) <= _MAX_CLASSES
        and len(set(names)) == len(names)
    ):
        return tuple(names)
    raise FormatError(f"expected the names of 1 to {_MAX_CLASSES} classes, all different")


Records = tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]


def _read_records(data: bytes, version: _Version, coarse: bool, name: str) -> Records:
    """Read pixels [n, 3072], labels and names from a binary file."""
    label_bytes = 2 if version.fine_and_coarse else 1
    length = label_bytes + _PIXELS
    if not data or len(data) % length:
        raise FormatError(
            f"{len(data):,} bytes are not a whole number of records of {length:,}; "
            "the file is cut short, or it is another file"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    labels = records[:, 0 if coarse else label_bytes - 1].astype(np.int64)
    return records[:, label_bytes:], labels, [f"{name}/{i}" for i in range(len(records))]


def _read_pickle(data: bytes, version: _Version, coarse: bool, name: str) -> Records:
    """Read pixels [n, 3072], labels and names from a pickled batch."""
    key = "labels" if not version.fine_and_coarse else "coarse_labels" if coarse else "fine_labels"
    batch = _pickled(data, "data", key)
    labels, array = batch[key], batch["data"]
    values = array.values if type(array) is UInt8Array else None
    if values is None or values.ndim != 2 or values.shape[1] != _PIXELS or not len(values):
        found = type(array).__name__ if values is None else f"uint8 {list(values.shape)}"
        raise FormatError(f"its data are {found}; expected uint8 [images, {_PIXELS}]")
    if (
        type(labels) is not list
        or len(labels) != len(values)
        or any(type(k) is not int or not 0 <= k < 256 for k in labels)
    ):
        raise FormatError(
            f"its {key} are not one whole number from 0 to 255 for each of {len(values)} images"
        )
    names = batch.get("filenames")
    if (
        type(names) is not list
        or len(names) != len(values)
        or any(type(each) is not str for each in names)
    ):
        names = [f"{name}/{i}" for i in range(len(values))]
    return values, np.asarray(labels, np.int64), names


def _pickled(data: bytes, *keys: str) -> dict[str, Any]:
    """Read a dict from a pickle, and check that it has these keys."""
    value = load(io.BytesIO(data), uint8_arrays(most_text=MAX_PART))
    if type(value) is not dict or any(key not in value for key in keys):
        found = (
            ", ".join(map(ascii, list(value)[:8])) if type(value) is dict else type(value).__name__
        )
        raise FormatError(f"expected a dict with {' and '.join(keys)}, found {found[:200]}")
    return value
