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

A column called ``label`` or ``class`` is the only one but the split. If not all its values are 0 or
1, they are the names or numbers of classes, of which each image has one. Capital letters do not
matter in ``split``, ``label`` and ``class``.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, UsageError
from ...images.decode import decode
from ...images.files import load_image
from ...system.files import shown
from ..dataset import ALL, Dataset, Reading
from ..rules import meant, usual
from ..trees.decoding import from_files
from ..trees.folders import decoded_bytes
from ..trees.listing import written_otherwise
from .columns import FORMS, Columns, columns_of
from .lines import lines, text_of
from .paths import image_path, is_missing, missing

__all__ = ["Table", "open_table"]

_VALUES = frozenset("01")
_NUMBERS = bytes.maketrans(b"01", b"\0\1")


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
    _columns: Columns

    @classmethod
    def of(cls, path: Path, split: str | None, first: str = "test") -> Table:
        """Check all rows of a table. Parameters and errors are those of `data.open_dataset`."""
        name = shown(path)
        with text_of(path, name) as text:
            columns = columns_of(next(lines(text, name), (0, []))[1], path, name)
            labels, divided = columns.labels, columns.split is not None
            asked = None if split is None else _wanted(split, divided, name)
            if columns.named:
                values = {row.label for row in _rows(text, name, columns)}
                if _VALUES.issuperset(values):
                    columns = columns._replace(named=False)
                else:
                    labels = sorted(values)
            there = _splits(text, name, columns)
        part = usual(there, first) if divided else ALL
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
        with text_of(self.path, name) as text:
            for row in _rows(text, name, self._columns):
                if self._columns.named and row.label not in numbers:
                    raise FormatError(f"{name} has changed while it was read; begin again")
                if row.split == self.wanted:
                    one = numbers[row.label] if self._columns.named else row.values[0]
                    yield row.image, row.values if self.several else one

    def check_images(self, every: bool) -> None:
        """Raise `ImageError` if an image does not exist; or, without ``every``, if none exists."""
        name, first = shown(self.path), None
        with text_of(self.path, name) as text:
            for row in _rows(text, name, self._columns):
                if row.split != self.wanted:
                    continue
                if is_missing(os.path.join(self.path.parent, row.image)):
                    first = first or row
                    if every:
                        break
                elif not every:
                    return
        if first is not None:
            raise missing(first.image, f"{name}, line {first.number}", self.path.parent)


def open_table(path: Path, split: str | None, reading: Reading) -> Dataset:
    """Open the data set of a table. Parameters and errors are those of `data.open_dataset`."""
    table, images, flat = Table.of(path, split, reading.first), list[str](), array("q")
    table.check_images(every=not (reading.skips or reading.keeps))
    if line := written_otherwise(shown(path), table.classes):
        reading.warn(line)
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


def _splits(text: TextIO, name: str, columns: Columns) -> set[str]:
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


def _rows(text: TextIO, name: str, columns: Columns) -> Iterator[_Row]:
    """Yield the rows below the heading, checked."""
    heading, place, _ = columns
    for number, row in islice(lines(text, name), 1, None):
        where = f"{name}, line {number}"
        if len(row) != len(heading):
            raise FormatError(
                f"{where} has {len(row)} values, and the first line {len(heading)}; expected an "
                "image and a 0 or 1 for each label"
            )
        image = image_path(row[0], where)
        own = "train" if place is None else _split(row[place], where)
        values = row[1:] if place is None else row[1:place] + row[place + 1 :]
        if columns.named:
            yield _Row(number, image, own, b"", _class(values[0], where))
            continue
        if not _VALUES.issuperset(values):
            named = zip(values, columns.labels, strict=True)
            value, label = next((v, h) for v, h in named if v not in _VALUES)
            raise FormatError(
                f"{where} has {value!r:.40} for {label!r:.80}; expected 1 if the image has the "
                f"label, and 0 if not. A table has {FORMS}"
            )
        yield _Row(number, image, own, "".join(values).encode().translate(_NUMBERS), "")


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
