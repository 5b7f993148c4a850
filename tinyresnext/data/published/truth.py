"""Which classes images have, as it is published in a file of its own.

=========================================  =========================================================
file                                       what it says
=========================================  =========================================================
the devkit of ILSVRC2012: its folder, its  for each validation image an ILSVRC2012 id, from 1, in an
``.tar.gz``, or                            order of the devkit's own; its ``meta.mat`` says which
``ILSVRC2012_validation_ground_truth.txt`` WordNet id that is
Caffe's ``val.txt``                        ``ILSVRC2012_val_00000001.JPEG 65`` a line: numbers from
                                           0, in the order of the WordNet ids
a list of numbers                          the same without names, one a line
Kaggle's ``LOC_val_solution.csv``          ``ILSVRC2012_val_00000001,n01751748 111 108 441 193`` a
                                           line: a WordNet id and a box, once or more often
TinyImageNet's ``val_annotations.txt``     ``val_0.JPEG``, a WordNet id and a box a line, with tabs
ReaL's ``real.json``                       for each image all right numbers; there may be none
=========================================  =========================================================
"""

from __future__ import annotations

import io
import json
import os
import re
from typing import Any, NamedTuple

from ...errors import FormatError, UsageError
from ...formats.tar import read_tar
from ...system.files import regular, shown
from .matlab import synsets

__all__ = ["ANNOTATIONS", "GROUND_TRUTH", "Truth", "read_truth"]

ANNOTATIONS = "val_annotations.txt"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_KAGGLE = b"ImageId,PredictionString"
_WNID = re.compile(r"n\d{8}")
_ANNOTATED = re.compile(r"([^\t]+)\t(n\d{8})(?:\t\d+){4}")
_MOST = 64 << 20  # bytes
_CLASSES = 1000  # of ReaL's labels


class Truth(NamedTuple):
    """The classes of images.

    Parameters
    ----------
    classes : tuple of str
        WordNet ids; or numbers from 0.
    answers : list of tuple of int
        For each image its right answers, as places in ``classes``.
    names : dict of str to int, optional
        The place in ``answers`` of each image, by its file's name; without it, the number in the
        name of a file says which image it is.
    several : bool
        Whether an image may have any number of right answers.
    """

    classes: tuple[str, ...]
    answers: list[tuple[int, ...]]
    names: dict[str, int] | None = None
    several: bool = False


def read_truth(path: str | os.PathLike[str]) -> Truth:
    """Read the classes of images from a file of one of the kinds above.

    Raises
    ------
    UsageError
        What the numbers mean is open.
    FormatError
        It is of another kind, or contradicts itself.
    """
    if os.path.isdir(path):
        return _devkit_folder(path)
    with regular(path) as file:
        if file.read(2) == b"\x1f\x8b":
            parts = read_tar(file, {GROUND_TRUTH, _META})
            if parts.keys() != {GROUND_TRUTH, _META}:
                raise FormatError(
                    f"{shown(path)} has no {GROUND_TRUTH} and {_META}; give the devkit of "
                    "ILSVRC2012"
                )
            return _devkit(parts[GROUND_TRUTH], parts[_META], shown(path))
        file.seek(0)
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise FormatError(
            f"{shown(path)} has more than {_MOST:,} bytes; expected a list of classes"
        )
    if data.lstrip()[:1] == b"[":
        return _real(data, shown(path))
    if data.removeprefix(b"\xef\xbb\xbf").startswith(_KAGGLE):
        return _boxes(data, shown(path))
    if os.path.basename(path) == GROUND_TRUTH:
        return _devkit_folder(os.path.dirname(os.fspath(path)) or os.curdir)
    if data.split(b"\n", 1)[0].count(b"\t") == 5:
        return _annotated(data, shown(path))
    return _listed(data, shown(path))


def _devkit_folder(path: str | os.PathLike[str]) -> Truth:
    """Read the devkit in a folder, or in the folder ``data`` of it."""
    for folder in (os.fspath(path), os.path.join(path, "data")):
        files = [os.path.join(folder, name) for name in (GROUND_TRUTH, _META)]
        if os.path.exists(files[0]):
            break
    if missing := [one for one in files if not os.path.exists(one)]:
        raise UsageError(
            f"there is no {shown(missing[0])}: the ids of {GROUND_TRUTH} have an order of their "
            f"own, which {_META} of the same devkit says; give the folder or the .tar.gz of the "
            "devkit, or Caffe's val.txt, which needs no devkit"
        )
    contents = []
    for one in files:
        with regular(one) as file:
            contents.append(file.read(_MOST))
    return _devkit(contents[0], contents[1], shown(path))


def _devkit(numbers: bytes, meta: bytes, name: str) -> Truth:
    """Return what the devkit says: ids from 1, in its own order."""
    ids, known = [_number(line, name) for line in _lines(numbers, name)], synsets(io.BytesIO(meta))
    if unknown := sorted({one for one in ids if one not in known}):
        raise FormatError(
            f"{name}: {GROUND_TRUTH} has the id {unknown[0]}, which {_META} does not have; give "
            "both files of one devkit"
        )
    order = sorted(set(ids))
    place = {one: i for i, one in enumerate(order)}
    return Truth(tuple(known[one] for one in order), [(place[one],) for one in ids])


def _listed(data: bytes, name: str) -> Truth:
    """Return what a list says: numbers from 0, with the names of the images or without."""
    names: dict[str, int] = {}
    numbers: list[int] = []
    lines = _lines(data, name)
    named = len(lines[0].split()) > 1
    for line in lines:
        image, _, number = line.rpartition(" ") if named else ("", "", line)
        if named and names.setdefault(os.path.basename(image.strip()), len(numbers)) != len(
            numbers
        ):
            raise FormatError(f"{name} has the image {image.strip()!r:.80} twice")
        numbers.append(_number(number, name))
    if 0 not in numbers:
        raise UsageError(
            f"{name} has numbers from {min(numbers)} to {max(numbers)} and no 0, so they may be "
            "ILSVRC2012 ids, which begin at 1 and have another order; give the devkit itself (its "
            "folder, with meta.mat), or a list whose numbers begin at 0"
        )
    classes = tuple(map(str, range(max(numbers) + 1)))
    return Truth(classes, [(one,) for one in numbers], names if named else None)


def _boxes(data: bytes, name: str) -> Truth:
    """Return what Kaggle's table says: the class of the boxes of each image."""
    found: dict[str, str] = {}
    for line in _lines(data, name)[1:]:
        image, _, boxes = line.partition(",")
        ids = set(boxes.split()[::5])
        if not image or len(ids) != 1 or not all(_WNID.fullmatch(one) for one in ids):
            raise FormatError(
                f"{name} has the line {line!r:.80}; expected the name of an image, a comma, and a "
                "WordNet id with four numbers behind it, as often as there are boxes"
            )
        if found.setdefault(f"{image}.JPEG", *ids) != next(iter(ids)):
            raise FormatError(f"{name} has the image {image!r:.80} twice")
    return _by_name(found)


def _annotated(data: bytes, name: str) -> Truth:
    """Return what TinyImageNet's list says: the class of each image, and a box."""
    found: dict[str, str] = {}
    for line in _lines(data, name):
        match = _ANNOTATED.fullmatch(line)
        if match is None:
            raise FormatError(
                f"{name} has the line {line!r:.80}; expected the name of an image, a WordNet id "
                "and four numbers, with tabs between them"
            )
        if match[1] in found:
            raise FormatError(f"{name} has the image {match[1]!r:.80} twice")
        found[match[1]] = match[2]
    return _by_name(found)


def _by_name(found: dict[str, str]) -> Truth:
    """Return the truth of images with these names and WordNet ids."""
    classes = tuple(sorted(set(found.values())))
    place = {one: i for i, one in enumerate(classes)}
    names = {image: i for i, image in enumerate(found)}
    return Truth(classes, [(place[one],) for one in found.values()], names)


def _real(data: bytes, name: str) -> Truth:
    """Return what ReaL says: for each image all right numbers."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is no JSON ({error}); expected ReaL's real.json") from error
    for i, row in enumerate(found):
        if not isinstance(row, list) or not all(
            type(one) is int and 0 <= one < _CLASSES for one in row
        ):
            raise FormatError(
                f"{name} has {row!r:.60} for image {i + 1}; expected a list of numbers from 0 to "
                f"{_CLASSES - 1}, as in ReaL's real.json"
            )
    classes = tuple(map(str, range(_CLASSES)))
    return Truth(classes, [tuple(sorted(set(row))) for row in found], several=True)


def _lines(data: bytes, name: str) -> list[str]:
    """Return the lines of a text that are not empty."""
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        lines = []
    if not lines:
        raise FormatError(f"{name} is no text, or empty; expected the class of one image a line")
    return lines


def _number(text: str, name: str) -> int:
    """Return the number on a line."""
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise FormatError(
            f"{name} has the line {text!r:.80}; expected a number, or the name of an image and a "
            "number, on each line"
        )
    return int(text)
