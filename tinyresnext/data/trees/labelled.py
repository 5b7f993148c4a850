"""Images with labels, found one after the other: lists, shards of WebDataset, patterns, many paths.

=====================================  =============================================================
typed                                  the class of an image
=====================================  =============================================================
a ``.txt`` file                        what its line says behind the path: ``val/1.jpg n01440764``,
                                       or with a tab between them
a tar archive whose images have a      what that file says; of an object of JSON, its ``label``,
``.cls`` or a ``.json`` beside them    ``cls`` or ``class``
a folder, a zip, another tar           the folder in which the image lies
an image                               the folder in which it lies
``shard-{000..010}.tar``,              as what they stand for
``val/*/*.jpg``
=====================================  =============================================================

Nothing is kept of an image: all are found once to count them and to know the classes, and again
when their turns come. So any number of them takes no more memory.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...errors import FormatError, UsageError
from ...system.files import shown
from ..dataset import LabelledImages, counted
from ..published.shards import label_in, samples
from ..rules import image_kind
from ..typed import is_pattern, matching, numbered
from .archives import ARCHIVES, Source, as_source, opener
from .sources import Images, is_list, lines_of
from .tars import TarFile

__all__ = ["is_labelled", "open_images"]

_MOST_CLASSES = 100_000
_LONGEST = 200  # characters of a label
_SAID = {
    "list": "the class of an image stands in the list",
    "shard": "the class of an image stands in its .cls or .json",
    "folder": "the class of an image is the folder in which it lies",
}


class _Found(NamedTuple):
    """An image, its label, and how that was found: a key of `_SAID`."""

    source: Source
    label: str
    how: str


def open_images(paths: Iterable[str]) -> LabelledImages:
    """Find all images that paths stand for once, and return them with their labels.

    Raises
    ------
    UsageError
        There is no image, a list or a pattern stands for nothing, or labels are found in several
        ways.
    FormatError
        An image has no label, or an archive is damaged.
    """
    paths, hows, left_out = tuple(paths), set[str](), Counter[str]()
    classes: set[str] = set()

    def checked() -> Iterator[Source]:
        for one in _found(paths, left_out):
            hows.add(one.how)
            classes.add(_checked(one))
            if len(hows) > 1:
                ways = " and ".join(sorted(_SAID[how] for how in hows))
                raise UsageError(
                    f"{ways}: {shown(one.source.name)} is the first that differs; say what all "
                    "images are in one of these ways, or evaluate them one after the other"
                )
            if len(classes) > _MOST_CLASSES:
                raise FormatError(f"the images have more than {_MOST_CLASSES:,} classes")
            yield one.source

    count, validation = counted(checked())
    if not count:
        raise UsageError(
            f"there is no image in {', '.join(map(shown, paths)):.300}; expected a list of "
            "images and labels, shards of WebDataset, or images in folders of their classes"
        )
    numbers = {name: number for number, name in enumerate(sorted(classes))}

    def each(left_out: Counter[str]) -> Iterator[Source]:
        for one in _found(paths, left_out):
            if one.label not in numbers:
                raise FormatError(f"{shown(one.source.name)} has another label than before")
            yield one.source._replace(label=numbers[one.label])

    return LabelledImages(each, tuple(numbers), count, left_out, validation, how=_SAID[hows.pop()])


def is_labelled(path: str) -> bool:
    """Return whether a path is a list, a pattern, or a shard: what `open_images` alone reads."""
    if is_pattern(path) or is_list(path):
        return True
    if os.path.isdir(path) or not path.lower().endswith(ARCHIVES) or path.lower().endswith(".zip"):
        return False
    # The first image decides; `none_labelled` refuses later ones that have a label if it has none.
    for sample in samples(TarFile(path, forwards=True)):
        if sample.images:
            return bool(sample.labels)
    return False


def _checked(one: _Found) -> str:
    """Return a label that can name a class."""
    if not one.label or len(one.label) > _LONGEST or not one.label.isprintable():
        raise FormatError(
            f"{shown(one.source.name)} has the label {one.label!r:.80}; expected a name or a number"
        )
    return one.label


def _found(paths: Iterable[str], left_out: Counter[str]) -> Iterator[_Found]:
    """Yield the images that paths stand for, with their labels."""
    for path in paths:
        if path == "-":
            raise UsageError("- is standard input, which has no labels here; give a list (.txt)")
        for one in numbered(path):
            for place, problem in matching(one, left_out):
                if problem is not None:
                    raise FormatError(
                        f"the folder {shown(place)} cannot be read: {problem}; let this user read "
                        "it, or name the others alone"
                    )
                yield from _in_place(place, left_out)


def _in_place(place: str, left_out: Counter[str]) -> Iterator[_Found]:
    """Yield the images of a list, an archive or a folder, or one image; count what has none."""
    if is_list(place):
        kind, images = "list", _in_list(place)
    elif place.lower().endswith(ARCHIVES) and not place.lower().endswith(".zip"):
        kind, images = "archive", _in_shard(place, left_out)
    else:
        kind = "folder" if os.path.isdir(place) else "archive"
        images = _in_folders(place, left_out)
    if (first := next(images, None)) is None:
        left_out[f"empty {kind}"] += 1
        return
    yield first
    yield from images


# -- lists


def _in_list(path: str) -> Iterator[_Found]:
    """Yield the images that a list names, each with its label."""
    folder: str | None = None
    for number, line in enumerate(lines_of(path), 1):
        if not (text := line.strip()):
            continue
        image, _, label = text.rpartition("\t" if "\t" in text else " ")
        image, label = image.strip(), label.strip()
        if not image_kind(image):
            raise FormatError(
                f"{shown(path)}, line {number} is {text!r:.80}; expected the path of an image, a "
                "space and its label, such as val/1.jpg n01440764; or a tab, if labels have spaces"
            )
        if folder is None:
            folder = _folder_of(path, image)
        yield _Found(as_source(os.path.join(folder, image)), label, "list")


def _folder_of(path: str, image: str) -> str:
    """Return where the paths of a list begin: here, or in the folder of the list.

    Raises
    ------
    UsageError
        The first image is in neither, or in both.
    """
    beside = os.path.join(os.path.dirname(path), image)
    here, there = os.path.exists(image), os.path.exists(beside)
    if here and there and not os.path.samefile(image, beside):
        raise UsageError(
            f"the first image of {shown(path)}, {shown(image)}, is both here and in the folder of "
            "the list; write whole paths into the list"
        )
    if not here and not there:
        raise UsageError(
            f"the first image of {shown(path)}, {shown(image)}, is neither here nor in the folder "
            "of the list; run the command in the folder in which the paths begin (or, for "
            "ImageNet's validation images, give their folder and --truth for the list)"
        )
    return "" if here else os.path.dirname(path)


# -- folders


def _in_folders(path: str, left_out: Counter[str]) -> Iterator[_Found]:
    """Yield an image, or the images in and below a folder or in a zip, by their folders."""
    for source in Images([path], left_out=left_out):
        if not image_kind(source.name):
            source.open()  # raises what is wrong with a folder or an archive
            raise UsageError(
                f"{shown(source.name)} is no image, no archive and no list; leave it out"
            )
        folder = os.path.dirname(os.path.abspath(source.name))
        if os.path.isfile(folder):
            raise _no_label(path, source.name)
        yield _Found(source, os.path.basename(folder), "folder")


def _no_label(path: str, name: str) -> FormatError:
    """Return the error of an image in an archive that nothing says the class of."""
    return FormatError(
        f"{shown(path)} has the image {shown(name)} in no folder, and no .cls or .json with a "
        "label beside it; expected shards of WebDataset, or folders of classes"
    )


# -- archives


def _in_shard(path: str, left_out: Counter[str]) -> Iterator[_Found]:
    """Yield the images of a tar archive."""
    archive = TarFile(path, forwards=True)
    opened = opener(archive, path)
    for sample in samples(archive):
        if not sample.images and sample.labels:
            left_out["lone label file"] += len(sample.labels)
        label = None
        if sample.images and sample.labels:
            label = label_in(sample, shown(f"{path}/{sample.images[0].name}"))
        for placed in sample.images:
            name = f"{path}/{placed.name}"
            source = Source(name, opened(placed.start, name))
            if label is not None:
                yield _Found(source, label, "shard")
            elif "/" in placed.name:
                yield _Found(source, placed.name.split("/")[-2], "folder")
            else:
                raise _no_label(path, placed.name)
