"""A table that says which labels each image has: CSV, or values with tabs between them.

::

    image,beach,sea,sky,split
    photos/0001.jpg,1,1,0,train
    photos/0002.jpg,0,0,1,val

The first line names the columns. The first column has the images, as paths from the folder of the
table; every other one is a label, with 1 for the images that have it and 0 for the others. A column
called ``split`` is none: it has train, val or test. Without it, all images are train. A table with
a single label is a data set of two classes, without the label and with it.

::

    image,label
    photos/0001.jpg,n01440764
    photos/0002.jpg,n01443537

If the only label is called ``label`` or ``class``, and not all its values are 0 or 1, they are the
names or numbers of classes, of which each image has one.
"""

from __future__ import annotations

import csv
import io
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, UnsafeError, UsageError
from ..images.decode import decode
from ..images.files import load_image
from ..system.files import regular, shown
from .dataset import ALL, Dataset, Reading
from .rules import meant, usual
from .trees.decoding import from_files
from .trees.folders import decoded_bytes

__all__ = ["Table", "open_table"]

MOST_BYTES = 64 << 20  # of a table: a million images with thirty labels
MOST_LINE = 1 << 20  # characters
MOST_LINES = 1 << 21
SPLIT = "split"
CLASS = ("label", "class")
_VALUES = frozenset("01")
_NUMBERS = bytes.maketrans(b"01", b"\0\1")
_DRIVE = re.compile(r"[A-Za-z]:")


class _Columns(NamedTuple):
    """The first line, where the split is if there is one, and whether the labels name classes."""

    heading: list[str]
    split: int | None
    named: bool = False


class _Row(NamedTuple):
    """What a line says: a byte 0 or 1 for each label; or a class."""

    number: int
    image: str
    split: str
    values: bytes
    label: str


@dataclass(frozen=True)
class Table:
    """The images of a table that are of one split, read again each time they are asked for.

    Iterating yields the path of an image, and its label: the number of its class, or a byte 0 or 1
    for each label where it may have several.

    Parameters
    ----------
    path : Path
    classes : tuple of str
        Or the labels, if ``several``.
    several : bool
    wanted : {"train", "val", "test"}
        The split.
    part : str
        What None means for a split here.
    """

    path: Path
    classes: tuple[str, ...]
    several: bool
    wanted: str
    part: str
    _columns: _Columns

    @classmethod
    def of(cls, path: Path, split: str | None, first: str = "test") -> Table:
        """Check all rows of a table. Parameters and errors are those of `data.open_dataset`."""
        name = shown(path)
        with _text(path, name) as text:
            heading = next(_lines(text, name), (0, []))[1]
            labels, place = _labels(heading, name)
            asked = None if split is None else _wanted(split, place is not None, name)
            columns = _Columns(heading, place)
            if len(labels) == 1 and labels[0].lower() in CLASS:
                named = columns._replace(named=True)
                values = {row.label for row in _rows(text, name, named)}
                if not _VALUES.issuperset(values):
                    labels, columns = sorted(values), named
            there = _splits(text, name, columns)
        part = ALL if place is None else usual(there, first)
        wanted = asked or ("train" if part == ALL else part)
        if wanted not in there:
            found = ", ".join(sorted(there)) or "none at all"
            kind = UsageError if there else FormatError
            raise kind(f"{name} has no {wanted} images below its first line; it has {found}")
        several = not columns.named and len(labels) > 1
        classes = labels if several or columns.named else [f"not {labels[0]}", *labels]
        return cls(path, tuple(classes), several, wanted, part, columns)

    def __iter__(self) -> Iterator[tuple[str, int | bytes]]:
        """Yield the images with their labels; raise `FormatError` if the table has changed."""
        name, numbers = shown(self.path), {label: i for i, label in enumerate(self.classes)}
        with _text(self.path, name) as text:
            for row in _rows(text, name, self._columns):
                if self._columns.named and row.label not in numbers:
                    raise FormatError(f"{name} has changed while it was read; begin again")
                if row.split == self.wanted:
                    one = numbers[row.label] if self._columns.named else row.values[0]
                    yield row.image, row.values if self.several else one


def open_table(path: Path, split: str | None, reading: Reading) -> Dataset:
    """Open the data set of a table. Parameters and errors are those of `data.open_dataset`."""
    table, images, flat = Table.of(path, split, reading.first), list[str](), array("q")
    for image, label in table:
        images.append(image)
        flat.extend(label if isinstance(label, bytes) else [label])

    def read(i: int) -> NDArray[np.uint8]:
        return decode(os.path.join(path.parent, images[i]), least=reading.least)

    def weigh(i: int) -> int:
        return decoded_bytes(load_image(os.path.join(path.parent, images[i]), pixels=False))

    every, name = np.asarray(flat), shown(path)
    labels = every.reshape(len(images), len(table.classes)) if table.several else every
    made = from_files(table.classes, labels, images, read, weigh, name, reading, Counter())
    return replace(made, part=table.part, root=str(path.parent))


@contextmanager
def _text(path: Path, name: str) -> Iterator[TextIO]:
    """Open a table, if it is not too large."""
    with regular(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise UnsafeError(f"{name} has more than {MOST_BYTES:,} bytes; divide the table")
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        try:
            yield text
        finally:
            text.detach()


def _splits(text: TextIO, name: str, columns: _Columns) -> set[str]:
    """Return the splits of all rows; raise `FormatError` if two rows name the same image."""
    splits, hashes = set(), array("q")
    for row in _rows(text, name, columns):
        splits.add(row.split)
        hashes.append(hash(row.image))
    kept = np.sort(np.frombuffer(hashes, np.int64))
    twice = set(kept[1:][kept[1:] == kept[:-1]].tolist())
    seen: dict[str, int] = {}
    for row in _rows(text, name, columns) if twice else ():
        if hash(row.image) in twice:
            if row.image in seen:
                raise FormatError(
                    f"{name}, line {row.number} names {row.image!r}, as line {seen[row.image]} "
                    "does; remove one"
                )
            seen[row.image] = row.number
    return splits


def _rows(text: TextIO, name: str, columns: _Columns) -> Iterator[_Row]:
    """Yield the rows below the heading, checked."""
    heading, place, _ = columns
    lines = islice(_lines(text, name), 1, None)
    for number, row in lines:
        where = f"{name}, line {number}"
        if len(row) != len(heading):
            raise FormatError(
                f"{where} has {len(row)} values, and the first line {len(heading)}; expected an "
                "image and a 0 or 1 for each label"
            )
        image = _image(row[0], where)
        own = "train" if place is None else _split(row[place], where)
        values = row[1:] if place is None else row[1:place] + row[place + 1 :]
        if columns.named:
            yield _Row(number, image, own, b"", _class(values[0], where))
            continue
        if not _VALUES.issuperset(values):
            named = zip(row[1:], heading[1:], strict=True)
            value, label = next((v, h) for v, h in named if h != SPLIT and v not in _VALUES)
            raise FormatError(
                f"{where} has {value!r:.40} for {label!r:.80}; expected 1 if the image has the "
                "label, and 0 if not"
            )
        yield _Row(number, image, own, "".join(values).encode().translate(_NUMBERS), "")


def _lines(text: TextIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that is not empty, and its values without spaces around."""
    text.seek(0)
    number, delimiter = 0, ","
    try:
        while line := text.readline(MOST_LINE + 1):
            number += 1
            if number > MOST_LINES:
                raise UnsafeError(f"{name} has more than {MOST_LINES:,} lines; divide the table")
            if len(line) > MOST_LINE:
                raise UnsafeError(f"{name}, line {number} has more than {MOST_LINE:,} characters")
            if number == 1 and "\t" in line:
                delimiter = "\t"
            # One line at a time: a quotation that is never closed takes no more than its own.
            row = next(csv.reader([line], delimiter=delimiter, strict=True), [])
            if row:
                yield number, [value.strip() for value in row]
    except UnicodeDecodeError as error:
        raise FormatError(f"{name} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise FormatError(f"{name}, line {number} is no line of a table: {error}") from error


def _labels(heading: list[str], name: str) -> tuple[list[str], int | None]:
    """Return the labels, and the number of the column with the split if there is one."""
    labels = [label for label in heading[1:] if label != SPLIT]
    if not labels or heading.count(SPLIT) > 1:
        raise FormatError(
            f"{name} begins with the columns {', '.join(heading)!r:.200}; expected a first line "
            "such as image,beach,sea,sky with commas or tabs between the names"
        )
    counts = Counter(labels)
    for label in labels:
        if not label or not label.isprintable() or counts[label] > 1:
            raise FormatError(
                f"{name} has a column called {label!r:.80}, which is empty, occurs twice or cannot "
                "be shown; give each label a name of its own"
            )
    return labels, heading.index(SPLIT) if SPLIT in heading[1:] else None


def _wanted(split: str, divided: bool, name: str) -> str:
    """Return the split that was asked for: train, val or test."""
    wanted = meant(split)
    if wanted is None or (wanted != "train" and not divided):
        known = "train, val and test" if divided else "train only: it has no column called split"
        raise UsageError(f"{name} has no split {split!r}; it has {known}")
    return wanted


def _split(value: str, where: str) -> str:
    """Return the split of a row."""
    if (found := meant(value)) is None:
        raise FormatError(f"{where} is of the split {value!r:.80}; expected train, val or test")
    return found


def _class(value: str, where: str) -> str:
    """Return the name of a class."""
    if not value or not value.isprintable():
        raise FormatError(f"{where} has the class {value!r:.80}; expected a name or a number")
    return value


def _image(value: str, where: str) -> str:
    """Return the path of an image, if it leads to no place outside the folder of the table.

    A path has one form, so that no image is in the table twice.
    """
    path = value.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or _DRIVE.match(path) or ".." in parts:
        raise UnsafeError(
            f"{where} names the image {value!r:.200}; expected a path from the folder of the "
            "table, and nothing outside it: move the table to the folder that has all images"
        )
    return "/".join(parts)
