"""Data sets for training and evaluation: ``open_dataset`` finds out what lies at a path, ``Loader`` makes batches of it.

====================================================================  ===========================================
at the path                                                           splits
====================================================================  ===========================================
a folder or a zip archive with ``SPLIT/CLASS/picture.jpg``            train, val (valid, validation), test
the same with ``CLASS/picture.jpg``                                   all of it is train
CIFAR-10, CIFAR-100, python or binary version: the published          train, test
``.tar.gz``, or the folder it unpacks to
MNIST and its kin: a folder with ``train-images-idx3-ubyte``,         train, test
``train-labels-idx1-ubyte``, ``t10k-...``, each with ``.gz`` or not
====================================================================  ===========================================

What a file says is never believed: sizes are compared with what is there before memory is allocated
for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral
from pathlib import Path

from ..errors import FormatError, UsageError
from ..images.augment import Augment
from ..system.files import regular, shown
from .cifar import open_cifar_archive, open_cifar_folder
from .dataset import Dataset, Reading, to_stderr
from .folders import open_folder, open_zip
from .loader import Loader
from .mnist import open_idx

__all__ = ["Augment", "Dataset", "Loader", "open_dataset"]


def open_dataset(
    path: str | os.PathLike[str],
    split: str = "train",
    on_broken: str = "refuse",
    *,
    coarse: bool = False,
    memory: int = 2**30,
    threads: int = 1,
    warn: Callable[[str], None] = to_stderr,
) -> Dataset:
    """Open the data set at a path, whatever its format.

    Parameters
    ----------
    path
        A folder or a file; the module's text says of which kinds.
    split
        "train", "val" or "test".
    on_broken
        What to do about a picture file that cannot be used: "refuse" raises its error, "skip"
        leaves it out and warns. Archives of raw pixels are always refused if anything is wrong with
        them.
    coarse
        For CIFAR-100: the 20 coarse classes in place of the 100 fine ones.
    memory
        Bytes. Pictures that need no more than this when they are decoded are decoded once, now, and
        kept.
    threads
        How many decode.
    warn
        Takes one line for each picture that is skipped; by default it goes to stderr.

    Raises
    ------
    UsageError
        There is no such split, or an argument is out of range.
    FormatError, UnsafeError
        What is there is of no kind that we read, contradicts itself, or is made to do harm.
    ImageError
        A picture is broken, and not to be skipped; or all are.
    """
    if on_broken not in ("refuse", "skip"):
        raise UsageError(f"on_broken is {on_broken!r}; give refuse or skip")
    if not isinstance(split, str):
        raise UsageError(f"split is {split!r}; give the name of one, such as train or test")
    for name, value, least in (("memory", memory, 0), ("threads", threads, 1)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} is {value!r}; give a whole number of at least {least}")
    reading = Reading(on_broken == "skip", warn, int(memory), int(threads))
    try:
        place = Path(path)
        is_folder = os.path.isdir(place)
    except (TypeError, ValueError):  # a number; a NUL in the name
        raise UsageError(f"a path was expected, found {path!r}") from None
    if is_folder:
        found = open_cifar_folder(place, split, coarse)
        if found is None:
            found = open_idx(place, split)
        return open_folder(place, split, reading) if found is None else found
    with regular(place) as file:
        start = file.read(263)
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return open_cifar_archive(place, split, coarse)
    if start[:2] == b"PK":
        return open_zip(place, split, reading)
    raise FormatError(
        f"{shown(place)} is no data set that can be read (it begins with {start[:4].hex(' ') or 'nothing'}); give a folder or "
        "a zip archive of pictures, CIFAR as published, or the folder with the files of MNIST"
    )
