"""`open_dataset`, which finds out what kind of data set lies at a path.

===========================================================  ====================================
at the path                                                  splits
===========================================================  ====================================
a folder, a zip or a tar with ``SPLIT/CLASS/image.jpg``      train, val, test (see `rules`)
a folder, a zip or a tar with ``CLASS/image.jpg``            train, which is all of it
ImageNet's validation set as published: its folder or        train, which is all of it
``.tar``, with the classes in a file (see `published`)
such a tar inside gzip, if it is read in its order           as those above
CIFAR-10 or CIFAR-100, python or binary version: the         train, test
published ``.tar.gz``, or the folder in it
MNIST or a data set in its format: a folder with             train, test
``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
``t10k-...``, each with or without ``.gz``
a table, ``.csv`` or ``.tsv``, that says which labels each   train, val, test if it says which
image has (see `tables`)
===========================================================  ====================================

No size that a file claims is trusted: it is compared with the size of the file before memory is
allocated for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import FormatError, UsageError
from ..formats.others import packed_kind
from ..formats.tar import Placed
from ..images.checks import whole_number
from ..images.decode import describe
from ..system.files import regular, shown
from .dataset import Dataset, LabelledImages, Reading, to_stderr
from .later import later, later_table
from .pixels.arrays import from_arrays
from .pixels.cifar import open_cifar_archive, open_cifar_folder
from .pixels.mnist import open_idx
from .published.shards import none_labelled
from .rules import is_idx, is_table
from .tables.table import open_table
from .trees.archives import ARCHIVES, as_path, check_several
from .trees.folders import open_archive, open_folder
from .trees.labelled import is_labelled, open_images
from .trees.sources import is_list
from .trees.tars import TarTree, has_images
from .trees.zips import ZipFile

__all__ = ["from_arrays", "open_dataset", "open_labelled"]


def open_dataset(
    path: str | os.PathLike[str],
    split: str | None = "train",
    on_broken: str = "refuse",
    *,
    coarse: bool = False,
    memory: int = 2**30,
    threads: int = 1,
    least: int | None = None,
    truth: str | os.PathLike[str] | None = None,
    forwards: bool = False,
    first: str = "test",
    warn: Callable[[str], None] = to_stderr,
) -> Dataset:
    """Open the data set at a path, whatever its format.

    Parameters
    ----------
    path
        A folder or a file; the text of this module lists the kinds.
    split
        "train", "val" or "test", or the name of the folder of a split. None is "test", or "val" if
        there is no test, or all images if there are no splits; ``first`` changes this.
    on_broken
        What to do about an image file that cannot be used: "refuse" raises its error, "skip"
        leaves it out and warns, "wrong" is for `evaluate`, which counts it as wrong and warns.
        Archives of raw pixels are always refused if anything is wrong with them.
    coarse
        For CIFAR-100: the 20 coarse classes in place of the 100 fine ones.
    memory
        Bytes. If all decoded images need no more than this, they are decoded once, now, and kept.
        Otherwise an image is decoded each time it is read.
    threads
        Number of threads that decode.
    least
        If it is given, JPEGs may be decoded at a reduced size, whose shorter side has at least
        twice so many pixels: for predictions of a network that sees no more. It is faster, and the
        pixels differ, as `images.prepare.views` says.
    truth
        The file with the classes of the images, where they do not stand in folders; see
        `data.published.truth`. If it has a published name and lies beside the images, it is found.
    forwards
        Whether images will be read in their order, as `evaluate` does: then a tar archive of images
        may be compressed with gzip.
    first
        Which split None means where there are both: "test", or "val" for a training, which must not
        choose by the test images.
    warn
        A function that takes one line for each image that is skipped, and for folders that are left
        out or may not be what they seem; by default it prints the line to stderr.

    Raises
    ------
    UsageError
        There is no such split, or an argument is out of range.
    FormatError, UnsafeError
        What lies at the path is of none of these kinds, contradicts itself, has folders that look
        like splits under unknown names, or is made to do harm.
    ImageError
        An image is broken and `on_broken` is "refuse", or all images are broken.
    """
    _check_broken(on_broken)
    if not isinstance(split, str | None):
        raise UsageError(f"split is {split!r}; give the name of one, such as train or test")
    memory, threads = whole_number("memory", memory, 0), whole_number("threads", threads, 1)
    least = least if least is None else whole_number("least", least, 1)
    if first not in ("test", "val"):
        raise UsageError(f"first is {first!r}; give test or val")
    keeps = on_broken == "wrong"
    reading = Reading(on_broken == "skip", warn, memory, threads, least, keeps, first)
    try:
        place, beside = Path(path), None if truth is None else os.fspath(truth)
        is_folder = os.path.isdir(place)
    except (TypeError, ValueError):  # a number; a NUL in the name
        if isinstance(path, np.ndarray | tuple | list):
            raise UsageError(
                f"a path was expected, found {describe(path)}; tinyresnext.data.from_arrays(x, y) "
                "makes a data set of arrays"
            ) from None
        raise UsageError(f"a path was expected, found {path!r:.200}") from None
    if is_folder:
        found = None if beside else _pixels_in(place, split, coarse)
        _check_coarse(place, coarse and found is None)
        return open_folder(place, split, reading, beside) if found is None else found
    if is_table(place.name):
        _check_no_truth(place, truth)
        _check_coarse(place, coarse)
        return open_table(place, split, reading)
    archive = _archive(place, forwards, beside is not None)
    if archive is None:
        return open_cifar_archive(place, split or "test", coarse)
    _check_coarse(place, coarse)
    return open_archive(archive, place, split, reading, beside)


def _archive(
    place: Path, forwards: bool, known: bool, check: Callable[[Placed], None] | None = None
) -> ZipFile | TarTree | None:
    """Return the archive of images at a path; None for a tar without any.

    ``known`` says that it has images, whatever their names are; ``check`` is that of `TarTree`.
    """
    with regular(place) as file:
        start = file.read(263)
    if place.suffix.lower() in (".npz", ".npy"):
        raise FormatError(
            f"{shown(place)} has arrays of NumPy, and no image files; load them in Python and make "
            "them a data set by tinyresnext.data.from_arrays, or write them as image files into "
            "folders of their classes"
        )
    if is_idx(place.name):
        raise FormatError(
            f"{shown(place)} is one of four files of MNIST or of its format; give the folder that "
            "has all of them"
        )
    if start[:2] == b"PK":
        return ZipFile(place)
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return TarTree(place, forwards, check) if known or has_images(place) else None
    if is_list(str(place)):
        raise FormatError(
            f"{shown(place)} is a text, and lists of images and labels are for evaluate only; make "
            "a table of it: a .csv with the first line image,label and a comma between each path "
            "and its label, where paths begin in the folder of the table"
        )
    if kind := packed_kind(start):
        then = ", and give the folder or the .tar" if kind.endswith("unpack it first") else ""
        raise FormatError(f"{shown(place)} is {kind}{then}")
    raise FormatError(
        f"{shown(place)} is no data set that can be read "
        f"(it begins with {start[:4].hex(' ') or 'nothing'}); give a folder or "
        "a zip or tar archive of images, a table (.csv) of images and labels, CIFAR as published, "
        "or the folder with the files of MNIST"
    )


def _pixels_in(place: Path, split: str | None, coarse: bool) -> Dataset | None:
    """Return the data set of raw pixels in a folder, if there is one."""
    found = open_cifar_folder(place, split or "test", coarse)
    if found is None:
        _check_coarse(place, coarse)
        return open_idx(place, split or "test")
    return found


def _check_coarse(place: Path, coarse: bool) -> None:
    """Raise `UsageError` if coarse classes are asked for of what is not CIFAR."""
    if coarse:
        raise UsageError(
            f"{shown(place)} is not CIFAR-100, which alone has coarse classes; leave out coarse"
        )


def _check_no_truth(place: Path, truth: str | os.PathLike[str] | None) -> None:
    """Raise `UsageError` if a table is given a file of classes."""
    if truth is not None:
        raise UsageError(f"{shown(place)} says which classes its images have; leave out --truth")


def open_labelled(
    paths: Sequence[str | os.PathLike[str]],
    split: str | None = None,
    on_broken: str = "wrong",
    *,
    truth: str | os.PathLike[str] | None = None,
    warn: Callable[[str], None] = to_stderr,
) -> Dataset | LabelledImages:
    """Open images for `evaluate`: a data set, or lists, shards, patterns and any number of paths.

    Images are decoded when their turn comes, and nothing is kept of them but where they are
    (`data.later`). Only those that are raw pixels, as in CIFAR and MNIST, are in memory.

    Parameters
    ----------
    paths : sequence of path
        One of them as for `open_dataset`; otherwise `trees.labelled` says what they stand for.
    split, on_broken, truth, warn
        As for `open_dataset`. A split and a file of classes go with one folder or archive.

    Raises
    ------
    UsageError, FormatError, UnsafeError, ImageError
        As for `open_dataset` and `trees.labelled.open_images`; or ``paths`` is one path and no
        list.
    """
    _check_broken(on_broken)
    check_several(paths)
    typed = [as_path(one) for one in paths]
    found: Dataset | LabelledImages
    if len(typed) == 1 and (truth is not None or not is_labelled(typed[0])):
        found = _one(Path(typed[0]), split, on_broken, truth, warn)
    elif split is None and truth is None:
        found = open_images(typed)
    else:
        what = "--split" if truth is None else "--truth"
        raise UsageError(
            f"{what} goes with one folder or one archive; lists, shards and patterns have all "
            "their images and their classes"
        )
    return replace(found, skips=on_broken == "skip", keeps=on_broken == "wrong", warn=warn)


def _one(
    place: Path,
    split: str | None,
    on_broken: str,
    truth: str | os.PathLike[str] | None,
    warn: Callable[[str], None],
) -> Dataset | LabelledImages:
    """Open a data set, as `open_labelled` does."""
    if os.path.isdir(place):
        pixels = _pixels_in(place, split, False) if truth is None else None
        return later(place, None, split, truth, warn) if pixels is None else pixels
    if is_table(place.name):
        _check_no_truth(place, truth)
        return later_table(place, split, on_broken == "refuse")
    as_folders = truth is None and place.name.lower().endswith(ARCHIVES)
    check = none_labelled(str(place)) if as_folders else None
    archive = _archive(place, True, truth is not None, check)
    if archive is None:
        return open_cifar_archive(place, split or "test", False)
    return later(place, archive, split, truth, warn)


def _check_broken(on_broken: str) -> None:
    """Raise `UsageError` for what cannot be done about broken images."""
    if on_broken not in ("refuse", "skip", "wrong"):
        raise UsageError(f"on_broken is {on_broken!r}; give refuse, skip or wrong")
