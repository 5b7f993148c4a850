"""What lies beside the folders of a data set and may say its classes or splits, and is not read.

Many published sets have their classes or their splits in a file, or masks of the same images in a
folder beside them: Oxford-IIIT Pets ``images`` and ``annotations``, HAM10000 a ``.csv``, Food-101
``meta/train.txt``, CUB-200 ``train_test_split.txt``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence

from ...errors import FormatError
from ..rules import is_idx, is_left_out, is_table
from ..trees.listing import Parts, Tree, some

__all__ = ["class_or_split", "doubt", "no_classes"]

_TABLE = "a table (.csv) with the columns image,label or image,label,split"
_MOST_ODD = 3  # classes: where there are more, one of them may be called images
_NO_CLASS = frozenset(
    {
        *("images", "image", "imgs", "img", "jpegimages", "jpg", "jpeg", "png"),
        *("annotations", "annotation", "masks", "labels", "trimaps", "groundtruth", "ground_truth"),
    }
)
# Lists are called train.txt, TestImages.txt, train_test_split.txt; logs and settings are none.
_DIVIDES = re.compile(
    r"(?!.*(?:log|config|args|setting|history|metric|result))"
    r".*(?<![a-z])(?:train|test|valid(?:ation)?(?![a-z])|val(?![a-z])|split|partition)",
    re.IGNORECASE,
)
_LISTS = (".txt", ".lst", ".json", ".mat")


def doubt(tree: Tree, root: Parts, classes: Sequence[str], divided: bool, name: str) -> str | None:
    """Return one line that says why folders may not be the classes; None if nothing says so.

    Parameters
    ----------
    tree
        The folders.
    root
        Where the classes are, or the splits.
    classes
        The names that are taken for classes.
    divided
        Whether there are splits: then a file beside them says no others.
    name
        Of the tree.
    """
    odd = [each for each in classes if each.lower() in _NO_CLASS]
    said = [f"{some(odd)} may not be classes"] if odd and len(classes) <= _MOST_ODD else []
    if files := [] if divided else [one for one in _beside(tree, root) if _says(one)]:
        said.append(
            f"{some(files)} beside these folders may say the classes or the splits, and is not read"
        )
    if not said:
        return None
    return (
        f"each folder with images in {name} is taken for a class, but {', and '.join(said)}; if "
        f"these folders are not the classes and splits that you mean, give {_TABLE}"
    )


def no_classes(tree: Tree, root: Parts, splits: Collection[str], name: str) -> FormatError:
    """Return the error of a tree without images in folders of classes.

    Parameters are those of `doubt`; ``splits`` are the folders that are called as splits.
    """
    files = [*_beside(tree, root)]
    if idx := [each for each in files if is_idx(each)]:
        return FormatError(
            f"{name} has {some(idx)}, as MNIST has, which is read from a folder only: give the "
            "folder with these files, of an archive when it is unpacked"
        )
    tables = [each for each in files if is_table(each)]
    table = f"; perhaps {some(tables)} says the classes: then give this table" if tables else ""
    return FormatError(
        f"{name} has no images in class folders; expected CLASS/image.jpg or "
        f"SPLIT/CLASS/image.jpg, or {_TABLE}{table}{class_or_split(tree, root, splits)}"
    )


def class_or_split(tree: Tree, root: Parts, splits: Collection[str]) -> str:
    """Return the rest of an error: what to do if classes are called as splits are.

    It is empty if all folders with images are called so. Parameters are those of `no_classes`.
    """
    if not splits or not set(tree.with_images(root)) - set(splits):
        return ""
    return (
        f"; if a class is called {some(list(splits))}, put all classes into a folder called train, "
        "which is the split train"
    )


def _beside(tree: Tree, root: Parts) -> Iterator[str]:
    """Yield the files from the top to the root of a tree, and in the folders without images there.

    Names begin at the top.
    """
    for depth in range(len(root) + 1):
        place = root[:depth]
        entries = tree.listing(place)
        yield from _files(place, entries.files)
        for name in entries.folders:
            inner = (*place, name)
            if not (is_left_out(name, True) or name in entries.links or tree.has_images(inner)):
                yield from _files(inner, tree.listing(inner).files)


def _files(place: Parts, names: Sequence[str]) -> Iterator[str]:
    """Yield the files of a folder that are not left out."""
    yield from ("/".join((*place, name)) for name in sorted(names) if not is_left_out(name, False))


def _says(name: str) -> bool:
    """Return whether a file is called as one that says classes or splits."""
    file = os.path.basename(name)
    return is_table(file) or (file.lower().endswith(_LISTS) and _DIVIDES.match(file) is not None)
