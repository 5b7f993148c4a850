"""Data sets of which nothing is kept but where images are: each is found again when its turn comes.

`open_labelled` opens these: a folder, a zip or a tar whose folders are classes, or whose classes
stand in a file of their own; and a table. Their images can be sent to other processes.

=====================================  =============================================================
what is opened                         what is kept of an image
=====================================  =============================================================
a folder of classes, a table           nothing, or 8 bytes while a table is checked
a zip                                  its name, and 12 bytes
a tar                                  its name, and 16 bytes
images whose classes stand in a file   a few hundred bytes (such a file has at most 64 MiB)
=====================================  =============================================================

The names in one folder, and the places of one class, are also in memory as texts in their turn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..system.files import shown
from .dataset import LabelledImages, counted
from .published.flat import is_unsorted, is_validation, label_of, labelled, truth_of
from .published.truth import Truth
from .tables.table import Table
from .trees.archives import Source, as_source, is_image, opener
from .trees.decoding import no_images
from .trees.folders import on_disk
from .trees.listing import Parts, Tree
from .trees.tars import TarTree
from .trees.tree import Levels
from .trees.zips import ZipFile

__all__ = ["later", "later_table"]


class _Place(NamedTuple):
    """A folder or an archive, its folders, and how an image of it is found, given its place."""

    path: Path
    tree: Tree
    image: Callable[[Parts], Source]
    archive: ZipFile | TarTree | None = None

    def labelled(self, levels: Levels, left_out: Counter[str]) -> Iterator[tuple[int, Parts]]:
        """Yield for each image the number of its class, and its place."""
        if isinstance(self.archive, TarTree):
            return _in_its_order(self.archive, levels)
        return levels.images(left_out)


def later(
    path: Path,
    archive: ZipFile | TarTree | None,
    split: str | None,
    truth: str | os.PathLike[str] | None,
    warn: Callable[[str], None],
) -> LabelledImages:
    """Open the images in a folder or an archive; the errors are those of `open_dataset`.

    The images of a tar come in its order, and others class by class, sorted.
    """
    place, name = _place(path, archive), shown(path)
    if truth is not None or is_unsorted(path, place.tree):
        return _with_truth(place, name, truth_of(path, split, truth, warn))
    levels = Levels(place.tree, name, warn).find(split)
    images = levels.images(levels.left_out)
    count, validation = counted(Source(parts[-1], str) for _, parts in images)
    if not count:
        raise no_images(name)

    def each(left_out: Counter[str]) -> Iterator[Source]:
        for label, parts in place.labelled(levels, left_out):
            yield place.image(parts)._replace(label=label)

    return LabelledImages(
        each, tuple(levels.classes), count, levels.left_out, validation, part=levels.part
    )


def _with_truth(place: _Place, name: str, known: Truth) -> LabelledImages:
    """Open images whose classes stand in a file of their own."""
    left_out: Counter[str] = Counter()
    found = labelled(place.tree, name, known, left_out)
    if not found:
        raise no_images(name)
    if isinstance(place.archive, TarTree):
        where = place.archive.where
        found.sort(key=lambda each: where(each[0]))

    def each(left_out: Counter[str]) -> Iterator[Source]:
        for parts, answers in found:
            yield place.image(parts)._replace(label=label_of(answers, known))

    return LabelledImages(
        each, known.classes, len(found), left_out, is_validation(parts[-1] for parts, _ in found),
        several=known.several, any_is_right=known.several,
    )  # fmt: skip


def later_table(path: Path, split: str | None, every: bool) -> LabelledImages:
    """Open the images of a table, of which ``every`` one must exist, or at least one.

    The errors are those of `open_dataset`.
    """
    table = Table.of(path, split)
    table.check_images(every)

    def each(left_out: Counter[str]) -> Iterator[Source]:
        for image, label in table:
            known = label if isinstance(label, int) else np.frombuffer(label, np.uint8)
            yield as_source(os.path.join(path.parent, image))._replace(label=known)

    count, validation = counted(each(Counter()))
    return LabelledImages(
        each, table.classes, count, {}, validation, several=table.several, part=table.part
    )


def _place(path: Path, archive: ZipFile | TarTree | None) -> _Place:
    """Return how the images of a folder, or of an archive that is open, are found."""
    if archive is None:
        return _Place(path, Tree(on_disk(path)), partial(_on_disk, path))
    image = partial(_inside, str(path), archive, opener(archive, str(path)))
    return _Place(path, Tree(archive.listing), image, archive)


def _on_disk(path: Path, parts: Parts) -> Source:
    """Return an image in a folder."""
    return as_source(os.path.join(path, *parts))


def _inside(
    path: str,
    archive: ZipFile | TarTree,
    opened: Callable[[int, str], Callable[[], Any]],
    parts: Parts,
) -> Source:
    """Return an image in an archive."""
    name = "/".join((path, *parts))
    return Source(name, opened(archive.where(parts), name))


def _in_its_order(archive: TarTree, levels: Levels) -> Iterator[tuple[int, Parts]]:
    """Yield the images that `Levels.images` yields, in the order of an archive."""
    numbers = {name: number for number, name in enumerate(levels.classes)}
    depth = len(levels.own)
    for parts in archive:
        inner = parts[depth + 1 :]
        if parts[:depth] == levels.own and inner and is_image(list(inner)):
            number = numbers.get(parts[depth])
            if number is not None:
                yield number, parts
