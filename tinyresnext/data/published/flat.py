"""Images whose classes stand in a file of their own, as those of ImageNet's validation set.

``ILSVRC2012_val_00000001.JPEG`` is image 1, wherever it lies: in one folder with all others, in the
published archive, or in the folder of its class. Those of TinyImageNet's validation set are in
``val/images``, and ``val/val_annotations.txt`` has their names and classes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from ...errors import FormatError, UsageError
from ...system.files import shown
from ..trees.listing import Parts, Tree
from .truth import ANNOTATIONS, GROUND_TRUTH, Truth, read_truth

__all__ = ["is_unsorted", "is_validation", "label_of", "labelled", "truth_of"]

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+", re.IGNORECASE)
# What lies beside the images, or in the folder with them, under its published name.
_BESIDE = (
    "ILSVRC2012_devkit_t12",
    "ILSVRC2012_devkit_t12.tar.gz",
    GROUND_TRUTH,
    "val.txt",
    "LOC_val_solution.csv",
    ANNOTATIONS,
)


def is_validation(names: Iterable[str]) -> bool:
    """Return whether all names are those of ImageNet's validation images."""
    found = False
    for name in names:
        if not (found := bool(_NUMBER.fullmatch(os.path.basename(name)))):
            break
    return found


def is_unsorted(path: str | os.PathLike[str], tree: Tree) -> bool:
    """Return whether these are published validation images that are in no folders of classes.

    They lie at the top and in no folder; or, as TinyImageNet's, in a folder called images with the
    file of their classes beside it.
    """
    images, folders = tree.images_in(()), tree.with_images(())
    if images and not folders:
        beside = os.path.join(os.path.dirname(os.path.abspath(path)), ANNOTATIONS)
        return is_validation(images) or os.path.exists(beside)
    return folders == ["images"] and not images and ANNOTATIONS in tree.listing(()).files


def _beside(path: str | os.PathLike[str]) -> str:
    """Return the file with the classes that lies beside flat images, or in their folder.

    Raises
    ------
    UsageError
        There is none, or several.
    """
    inside = [os.fspath(path)] if os.path.isdir(path) else []
    folders = [*inside, os.path.dirname(os.path.abspath(path))]
    found = [os.path.join(f, name) for f in folders for name in _BESIDE]
    found = [one for one in found if os.path.exists(one)]
    if len(found) == 1:
        return found[0]
    kinds = (
        "the devkit of ILSVRC2012 (its folder, or its .tar.gz), Caffe's val.txt, Kaggle's "
        f"LOC_val_solution.csv, ReaL's real.json, or TinyImageNet's {ANNOTATIONS}"
    )
    if found:
        raise UsageError(
            f"beside the images of {shown(path)} there are {', '.join(map(shown, found))}, which "
            f"may all have their classes; leave one of them there, or name it (evaluate --truth "
            "FILE)"
        )
    raise UsageError(
        f"the images of {shown(path)} are in no folders of classes, and nothing beside them says "
        f"which classes they have; put one of these files into their folder or beside it: {kinds}; "
        "or name it (evaluate --truth FILE)"
    )


def truth_of(
    path: str | os.PathLike[str],
    split: str | None,
    truth: str | os.PathLike[str] | None,
    warn: Callable[[str], None],
) -> Truth:
    """Return the classes of images that are in no folders of classes.

    Parameters
    ----------
    path
        The images.
    split
        What was asked for.
    truth
        The file with the classes; None for the one that lies beside the images.
    warn
        Takes one line that says which file was found.

    Raises
    ------
    UsageError
        There is no such file, or several; or another split than train was asked for.
    FormatError
        As `read_truth` raises.
    """
    if split not in (None, "train"):
        raise UsageError(
            f"{shown(path)} has its classes in a file, so there is no split {split!r}; give the "
            "folder of that split, and leave out --split"
        )
    file = _beside(path) if truth is None else truth
    known = read_truth(file)
    if truth is None:
        warn(f"the classes of the images are those in {shown(file)}, which lies beside them")
    return known


def labelled(
    tree: Tree, name: str, truth: Truth, left_out: Counter[str]
) -> list[tuple[Parts, tuple[int, ...]]]:
    """Return the images of a tree, each with its right answers; count what is left out.

    An image without a right answer is left out.

    Raises
    ------
    FormatError
        An image has no class there, or two have one name.
    """
    found = []
    for place in sorted(tree.walk((), left_out), key=lambda parts: (parts[-1], parts)):
        if answers := truth.answers[_place(place[-1], name, truth)]:
            found.append((place, answers))
        else:
            left_out["image without a right answer"] += 1
    for (one, _), (other, _) in pairwise(found):
        if one[-1] == other[-1]:
            raise FormatError(f"{name} has two images called {one[-1]!r}; remove one")
    return found


def label_of(answers: tuple[int, ...], truth: Truth) -> Any:
    """Return the label of an image: its class, or where several may be right a 1 for each."""
    if not truth.several:
        return answers[0]
    row = np.zeros(len(truth.classes), np.uint8)
    row[list(answers)] = 1
    return row


def _place(image: str, name: str, truth: Truth) -> int:
    """Return the place of an image among the answers."""
    count = len(truth.answers)
    if truth.names is not None:
        if image in truth.names:
            return truth.names[image]
        raise FormatError(
            f"{name} has the image {image!r:.80}, and the list of classes does not; give the list "
            "of these images"
        )
    match = _NUMBER.fullmatch(image)
    if match and 1 <= int(match[1]) <= count:
        return int(match[1]) - 1
    raise FormatError(
        f"{name} has the image {image!r:.80}; expected names such as ILSVRC2012_val_00000001.JPEG, "
        f"with numbers up to {count:,}, which is how many classes are listed"
    )
