"""The levels of folders in a data set: what surrounds it, its splits, its classes, its images.

What is no image is counted in `Levels.left_out`, so that a command can say what it did not take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ...errors import FormatError, UsageError
from ..dataset import ALL
from ..published.beside import class_or_split, doubt, no_classes
from ..published.flat import is_validation
from ..rules import SPLITS, alike, image_kind, is_left_out, meant, splits_among, usual
from .listing import Parts, Tree, some, written_otherwise

__all__ = ["Levels"]


@dataclass
class Levels:
    """A data set in a tree of folders, for one split.

    Parameters
    ----------
    tree
        The folders.
    name
        Of the tree, for messages.
    warn
        Takes one line about folders that are not what they seem to be.

    Attributes
    ----------
    classes
        Sorted names: the folders with images, of all splits together that are sorted into classes.
    own
        Where the classes of the split are.
    root
        Where the splits or the classes are.
    part
        What None means for a split here, among those that are sorted into classes.
    left_out
        How many files and folders are no image and no class, by what they are.
    """

    tree: Tree
    name: str
    warn: Callable[[str], None]
    classes: list[str] = field(default_factory=list)
    own: Parts = ()
    root: Parts = ()
    part: str = ALL
    left_out: Counter[str] = field(default_factory=Counter)

    def find(self, split: str | None, first: str = "test") -> Levels:
        """Find the classes of all splits, and where those of one are.

        None is as for `data.open_dataset`: a split that there is, or all images without splits.

        Raises
        ------
        UsageError
            There is no such split.
        FormatError
            There are no folders with images, or they seem to be splits under unknown names; or no
            folder of the split is a class.
        """
        self.root = self._inside(())
        splits = splits_among(self.tree.holding(self.root))
        if splits:
            self.part = usual(splits.values(), first)
            folder = self._chosen(self.part if split is None else split, splits)
            places = self._split_places(splits)
            self._name_others(self.root, set(splits), "beside the splits")
        else:
            if split is not None:
                self._check_no_split(split)
            folder, places = "", {"": self.root}
        self.own = places[folder]
        places = self._sorted_places(places, splits, folder)
        self.classes = sorted(
            {c for place in places.values() for c in self.tree.with_images(place)}
        )
        if not self.classes:
            raise no_classes(self.tree, self.root, splits, self.name)
        if splits:
            self.part = usual([splits[name] for name in places], first)
        else:
            self._check_splits_inside()
            self._check_unknown_splits()
        if double := written_otherwise(self.name, self.classes):
            self.warn(double)
        if line := doubt(self.tree, self.root, self.classes, bool(splits), self.name):
            self.warn(line)
        known = set(self.classes)
        for place in places.values():
            self._name_others(place, known, "without images")
        self.left_out.update(self.tree.left_out_in(self.own))
        return self

    def images(self, left_out: Counter[str]) -> Iterator[tuple[int, Parts]]:
        """Yield for each image of the split the number of its class, and its place; count the rest.

        The places of one class are kept until all of them were taken.
        """
        for label, name in enumerate(self.classes):
            for place in sorted(self.tree.walk((*self.own, name), left_out)):
                yield label, place

    # -- levels ------------------------------------------------------------------------------------

    def _inside(self, place: Parts) -> Parts:
        """Enter the single folder around everything, as long as it holds folders and no images."""
        while (
            len(folders := self.tree.holding(place)) == 1
            and not splits_among(folders)
            and self.tree.is_wrapping((*place, folders[0]))
        ):
            place = (*place, folders[0])
        return place

    def _split_places(self, splits: Iterable[str]) -> dict[str, Parts]:
        """Return where the classes of each split are: SPLIT, or a single folder around them in it.

        That folder is called as a split too (``seg_train/seg_train``), or every split has one, or
        what is in it are the classes of another split.
        """
        each = {}
        for name in splits:
            place = (*self.root, name)
            each[name] = self.tree.with_images(place) or self.tree.with_images(place, links=True)
        every = {alike(c) for inner in each.values() for c in inner}
        same = len(each) > 1 and len({tuple(inner) for inner in each.values()}) == 1
        places = {}
        for name, inner in each.items():
            places[name] = place = (*self.root, name)
            if len(inner) == 1 and self.tree.is_wrapping((*place, inner[0])):
                named = inner[0].lower() == name.lower() or bool(splits_among(inner))
                inside = self.tree.with_images((*place, inner[0]))
                classes = set(map(alike, inside)) - {alike(inner[0])}
                if named or same or not every.isdisjoint(classes):
                    places[name] = (*place, inner[0])
        return places

    def _sorted_places(
        self, places: dict[str, Parts], splits: dict[str, str], wanted: str
    ) -> dict[str, Parts]:
        """Return where the classes of those splits are that are sorted into classes.

        Classes are those of train, or where there is no train, of splits with several folders. A
        split that shares no folder with them has its images in no order, as those of TinyImageNet
        and of Kaggle's competitions do: they lie in a folder called images, or test, or in none.
        """
        each = {name: self.tree.with_images(place) for name, place in places.items()}
        first = [name for name in splits if splits[name] == "train"]
        first = first or [name for name, inner in each.items() if len(inner) > 1]
        folders = [c for name in first for c in self.tree.listing(places[name]).folders]
        known = {alike(c): c for c in folders if not is_left_out(c, True)}
        odd = [
            name
            for name, inner in each.items()
            if known and inner and known.keys().isdisjoint(map(alike, inner))
        ]
        rest = {name: place for name, place in places.items() if name not in odd}
        flat = bool(known) and not each[wanted] and bool(self.tree.images_in(places[wanted]))
        if wanted in odd or flat:
            others = sorted(filter(each.get, rest), key=lambda name: splits[name] != "val")
            raise self._unsorted(places, wanted, sorted(known.values()), others)
        if odd:
            folders = sorted({folder for name in odd for folder in each[name]})
            self.warn(
                f"{self.name} has images that are not sorted into classes in {some(odd)}: no "
                f"folder there ({some(folders)}) is a class of another split, so none is a class "
                "here"
            )
        return rest

    def _unsorted(
        self, places: dict[str, Parts], split: str, known: list[str], others: list[str]
    ) -> FormatError:
        """Return the error of a split none of whose folders is a class, or that has no folders."""
        files = self.tree.listing(places[split]).files
        beside = [n for n in files if not (is_left_out(n, False) or image_kind(n))]
        said = f" (perhaps {some(beside)} beside them says which each has)" if beside else ""
        other = f", or give another split, such as {others[0]!r}" if others else ""
        other += " (--split, or --val-split with --val)" if others else ""
        give = "give the folder {!r} itself as the data set"
        if inner := self.tree.with_images(places[split]):
            why = f"no folder there ({some(inner)}) is a class of another split ({some(known)})"
            own = f", or, if they have classes of their own, {give.format(split)}"
        else:
            why = f"they lie in none of the folders of another split ({some(known)})"
            flat = [n for n, place in places.items() if is_validation(self.tree.images_in(place))]
            own = ", or, for ImageNet's validation images, whose classes are in a file, "
            own = own + give.format(flat[0]) if flat else ""
        return FormatError(
            f"the split {split!r} of {self.name} has images that are not sorted into classes: "
            f"{why}; sort these images into folders of their classes{said}{other}{own}"
        )

    def _chosen(self, split: str, splits: dict[str, str]) -> str:
        """Return the folder of a split: the one of this name, or else the one that means it."""
        if split in splits:
            return split
        found = [name for name in splits if splits[name] == meant(split)]
        for spelling in (split.lower(), meant(split)):
            same = [name for name in found if name.lower() == spelling]
            found = same if len(same) == 1 else found
        if len(found) == 1:
            return found[0]
        others = sorted(set(self.tree.with_images(self.root)) - set(splits))
        if found:
            raise UsageError(
                f"{self.name} has {len(found)} folders for the split {split!r}: "
                f"{some(found)}; give the name of one of them as the split"
            )
        raise UsageError(
            f"{self.name} has no split {split!r}; it has {some(list(splits))}"
            + (f", and folders that are no splits: {some(others)}" if others else "")
            + class_or_split(self.tree, self.root, splits)
        )

    def _check_no_split(self, split: str) -> None:
        """Raise `UsageError` if a tree without splits is asked for another split than train."""
        if split.lower() not in SPLITS["train"]:
            known = sorted(name for names in SPLITS.values() for name in names)
            found = self.tree.with_images(self.root)
            raise UsageError(
                f"{self.name} has no splits (folders called {', '.join(known)}), so there is no "
                f"{split!r}; all its images are 'train', which --split train names"
                + (f"; its folders are {some(found)}" if found else "")
            )

    def _check_splits_inside(self) -> None:
        """Refuse a "class" with several splits in it."""
        for name in self.classes:
            splits = splits_among(self.tree.holding((*self.root, name)))
            if len(set(splits.values())) > 1:
                raise FormatError(
                    f"the folder {name!r} of {self.name} has the folders {some(list(splits))}, "
                    "which look like splits, and so it is no class; give that folder as the data "
                    "set, or put the splits above the classes, as in train/CLASS and test/CLASS"
                )

    def _check_unknown_splits(self) -> None:
        """Refuse "classes" that all have the same folders with all images in them."""
        places = [self._inside((*self.root, name)) for name in self.classes]
        if len(places) == 1 and len(inside := self.tree.with_images(places[0])) > 1:
            self.warn(
                f"{self.name} has a single class, {self.classes[0]!r}, because there are images "
                f"beside the folders {some(inside)} in it; if these are the classes, move those "
                "images away"
            )
        inner = [
            set(self.tree.with_images(place)) for place in places if not self.tree.images_in(place)
        ]
        counts = Counter(name.lower() for names in inner for name in names)
        shared = [name for name, count in counts.items() if count > 1]
        if len(shared) < 2:
            return
        text = f"the folders {some(self.classes)} of {self.name} have the same folders in them"
        remedy = (
            "rename the splits to train, val and test; or, if they are classes, put them into a "
            "folder called train"
        )
        names = some(sorted(set().union(*inner)))
        if len(inner) == len(self.classes) and all(len(one) == len(counts) for one in inner):
            raise FormatError(
                f"{text}, {names}, and no other images: they look like splits and not like "
                f"classes; {remedy}"
            )
        self.warn(f"{text}, such as {names}: if these are splits and not classes, {remedy}")

    def _name_others(self, place: Parts, known: set[str], what: str) -> None:
        """Warn of folders that are neither known nor left out, and count them."""
        others = [
            name
            for name in self.tree.listing(place).folders
            if not is_left_out(name, True) and name not in known
        ]
        if others:
            where = f"the folder {place[-1]!r} of {self.name}" if place else self.name
            self.warn(f"{where} has folders {what}, which are left out: {some(others)}")
            empty = sum(not self.tree.has_images((*place, name)) for name in others)
            self.left_out.update({"empty folder": empty, "other folder": len(others) - empty})
