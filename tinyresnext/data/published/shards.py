"""Samples of WebDataset: files of a tar one after the other, whose names begin alike.

``0001.jpg`` is an image, and ``0001.cls`` or ``0001.json`` beside it has its label, as text or as a
field of an object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from ...errors import FormatError
from ...formats.tar import Placed
from ...system.files import shown
from ..trees.archives import is_image
from ..trees.tars import TarFile

__all__ = ["Sample", "label_in", "none_labelled", "samples"]

_MOST_LABEL = 1 << 20  # bytes of a .cls or .json
_IN_JSON = ("label", "cls", "class")


class Sample(NamedTuple):
    """The files of one sample of an archive: its images, and its labels by their endings."""

    images: list[Placed]
    labels: dict[str, bytes]


def samples(archive: TarFile) -> Iterator[Sample]:
    """Yield the samples of an archive: files one after the other, whose names begin alike."""
    for _, files in groupby(archive.each(), lambda each: _parted(each[0].name)[0]):
        sample = Sample([], {})
        for placed, read in files:
            ending = _parted(placed.name)[1]
            if is_image(placed.name.split("/")):
                sample.images.append(placed)
            elif ending in ("cls", "json"):
                sample.labels[ending] = read(_MOST_LABEL)
        yield sample


def none_labelled(path: str) -> Callable[[Placed], None]:
    """Return a function that takes the files of an archive, whose first image has no label.

    It raises `FormatError` for a later image that has a ``.cls``.
    """
    now, image, label = "", "", False

    def check(placed: Placed) -> None:
        nonlocal now, image, label
        start, ending = _parted(placed.name)
        if start != now:
            now, image, label = start, "", False
        if ending == "cls":
            label = True
        elif is_image(placed.name.split("/")):
            image = placed.name
        if image and label:
            raise FormatError(
                f"{shown(path)} has a .cls beside the image {shown(image)}, and neither a .cls nor "
                "a .json beside its first image; expected one beside each image, or, if folders "
                "are the classes, no .cls"
            )

    return check


def label_in(sample: Sample, name: str) -> str:
    """Return the label of a sample, given the name of its image for messages.

    Raises
    ------
    FormatError
        It has none, or two; or it has two images.
    """
    if len(sample.images) > 1:
        raise FormatError(f"{name} is one of {len(sample.images)} images of one sample")
    found = {}
    if "cls" in sample.labels:
        found["cls"] = _text(sample.labels["cls"].decode("utf-8", "replace").strip())
    if "json" in sample.labels:
        try:
            value: Any = json.loads(sample.labels["json"])
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the .json beside {name} is none: {error}") from None
        values = [value[key] for key in _IN_JSON if isinstance(value, dict) and key in value]
        if values and type(values[0]) in (int, str):
            found["json"] = _text(str(values[0]).strip())
    if not found:
        raise FormatError(
            f"the .json beside {name} has no label; expected an object with one of "
            f"{', '.join(_IN_JSON)}, or a .cls"
        )
    if len({text.isdigit() for text in found.values()}) < len(set(found.values())):
        raise FormatError(  # a number and a name may mean the same class
            f"{name} has the label {found['cls']!r:.80} in its .cls, and {found['json']!r:.80} in "
            "its .json; leave one of them out"
        )
    return next(iter(found.values()))


def _parted(name: str) -> tuple[str, str]:
    """Return what the files of one sample have in common, and the ending in lower case."""
    folder, slash, last = name.rpartition("/")
    first, _, ending = last.partition(".")
    return folder + slash + first, ending.lower()


def _text(label: str) -> str:
    """Return a label; a number in its usual form."""
    return str(int(label)) if label.isascii() and label.isdigit() and len(label) < 10 else label
