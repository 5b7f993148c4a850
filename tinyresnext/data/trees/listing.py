"""A tree of folders: what is in each folder, and the images in and below it.

The same rules hold for a folder on a disk and for an archive: both are a `Listing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import FormatError
from ...formats.stored_zip.archive import MOST_LEVELS
from ..rules import alike, image_kind, is_left_out, splits_among

__all__ = ["Entries", "Listing", "Parts", "Tree", "some", "written_otherwise"]

_NAMED = 10  # folders and files that a message names; the others are counted

Parts = tuple[str, ...]
"""A place in a tree: the names of the folders on the way to it, and its own."""


class Entries(NamedTuple):
    """What is in one folder: sorted names.

    Parameters
    ----------
    folders, files
        Folders and files, also those to leave out.
    links
        Which of the folders are links: a class may be one, what is inside a class may not.
    """

    folders: list[str]
    files: list[str]
    links: frozenset[str] = frozenset()


Listing = Callable[[Parts], Entries]
"""Returns what is in a folder, given as its path below the top of the tree; nothing if there is no
such folder."""


@dataclass(frozen=True)
class Tree:
    """A tree of folders, given what is in each of them; whether a folder has images is kept."""

    listing: Listing
    _known: dict[tuple[Parts, bool], bool] = field(default_factory=dict)

    def with_images(self, place: Parts, links: bool = False) -> list[str]:
        """Return the folders with images in them or below, without those to leave out.

        ``links`` is that of `has_images`.
        """
        return [
            name
            for name in self.listing(place).folders
            if not is_left_out(name, True) and self.has_images((*place, name), links)
        ]

    def holding(self, place: Parts) -> list[str]:
        """Return the folders with images, and those called as splits with images behind links."""
        found = set(self.with_images(place))
        names = [name for name in self.listing(place).folders if not is_left_out(name, True)]
        splits = splits_among(names)
        return [
            name
            for name in names
            if name in found or (name in splits and self.has_images((*place, name), links=True))
        ]

    def has_images(self, place: Parts, links: bool = False) -> bool:
        """Return whether there is an image in a folder or below.

        With ``links``, a folder below may be a link, and what is inside that link may not: so a
        loop of links ends.
        """
        if (place, links) not in self._known:
            _check_depth(place)
            entries = self.listing(place)
            self._known[place, links] = bool(self.images_in(place)) or any(
                self.has_images((*place, name), links and name not in entries.links)
                for name in entries.folders
                if not is_left_out(name, True) and (links or name not in entries.links)
            )
        return self._known[place, links]

    def images_in(self, place: Parts) -> list[str]:
        """Return the images directly in a folder."""
        return [
            name
            for name in self.listing(place).files
            if image_kind(name) and not is_left_out(name, False)
        ]

    def is_wrapping(self, place: Parts) -> bool:
        """Return whether a folder holds folders with images, and no images itself."""
        return not self.images_in(place) and bool(self.with_images(place))

    def walk(self, top: Parts, left_out: Counter[str]) -> Iterator[Parts]:
        """Yield all images below a folder, count the rest; links to folders are not followed."""
        waiting = [top]
        while waiting:
            place = waiting.pop()
            _check_depth(place)
            entries = self.listing(place)
            for name in entries.files:
                if is_left_out(name, False):
                    left_out["hidden"] += 1
                elif image_kind(name):
                    yield (*place, name)
                else:
                    left_out["other file"] += 1
            for name in entries.folders:
                if is_left_out(name, True):
                    left_out["hidden"] += 1
                elif name in entries.links:
                    left_out["linked folder"] += 1
                else:
                    waiting.append((*place, name))

    def left_out_in(self, place: Parts) -> Counter[str]:
        """Count what is left out directly in a folder of classes."""
        entries = self.listing(place)
        hidden = sum(is_left_out(name, True) for name in entries.folders)
        hidden += sum(is_left_out(name, False) for name in entries.files)
        images = len(self.images_in(place))
        rest = sum(not is_left_out(name, False) for name in entries.files) - images
        return Counter({"hidden": hidden, "image outside classes": images, "other file": rest})


def some(names: Sequence[str]) -> str:
    """Return quoted names for a message, not too many."""
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


def written_otherwise(where: str, classes: Sequence[str]) -> str:
    """Return a warning of classes that are the same but for how they are written, or nothing."""
    every: dict[str, list[str]] = {}
    for name in classes:
        every.setdefault(alike(name), []).append(name)
    double = [name for same in every.values() if len(same) > 1 for name in same]
    if not double:
        return ""
    return (
        f"{where} has classes that differ only in capital letters, or in how Unicode writes their "
        f"accents: {some(double)}; if they are the same, give them one name"
    )


def _check_depth(place: Parts) -> None:
    """Raise `FormatError` where folders are inside each other without end."""
    if len(place) > MOST_LEVELS:
        raise FormatError(
            f"the data set has folders in more than {MOST_LEVELS} levels, such as "
            f"{ascii('/'.join(place))[:80]}...; give the folder that has the classes"
        )
