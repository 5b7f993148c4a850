"""What the columns of a table mean, by the names in its first line."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ...errors import FormatError
from ..rules import image_kind

__all__ = ["FORMS", "Columns", "columns_of"]

SPLIT = "split"
CLASS = ("label", "class")

FORMS = (
    "the columns image,label or image,label,split in this order and no others, if each image has "
    "one class; or image and a column of 0 and 1 for each label"
)
"""Which columns a table has, for messages."""


class Columns(NamedTuple):
    """The first line, where the split is if there is one, and whether the labels name classes."""

    heading: list[str]
    split: int | None
    named: bool = False

    @property
    def labels(self) -> list[str]:
        """Return the names of the columns that are labels."""
        return [name for i, name in enumerate(self.heading) if i not in (0, self.split)]


def columns_of(heading: list[str], path: Path, name: str) -> Columns:
    """Return what the columns with these names mean; ``path`` is that of the table.

    Raises
    ------
    FormatError
        There are no names, or they say that the columns have something else.
    """
    known = [column.lower() for column in heading]
    first = heading[0] if heading else ""
    if first and (image_kind(first) or os.path.isfile(os.path.join(path.parent, first))):
        raise FormatError(
            f"{name} begins with the image {first!r:.200}; expected a first line that names the "
            f"columns, such as image,label: write it above the images. A table has {FORMS}"
        )
    if len(heading) > 1 and (not first or known[0] in (*CLASS, SPLIT)):
        wrong = f"is called {first!r:.80}" if first else "has no name, like an index of pandas"
        wrong += "" if first else " (if it has the images, call it image)"
        raise FormatError(
            f"the first column of {name} {wrong}; expected the column of the images. A table has "
            f"{FORMS}"
        )
    places = [i for i, column in enumerate(known) if i and column == SPLIT]
    columns = Columns(heading, places[0] if places else None)
    labels = columns.labels
    if not labels or len(places) > 1:
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
    classes = [label for label in labels if label.lower() in CLASS]
    if classes and len(labels) > 1:
        others = ", ".join(repr(label) for label in labels if label != classes[0])
        raise FormatError(
            f"{name} has the column {classes[0]!r}, which is the class of an image, and beside it "
            f"{others:.200}; leave out these columns, or, if {classes[0]!r} is one label of "
            f"several, give it another name. A table has {FORMS}"
        )
    return columns._replace(named=bool(classes))
