"""Images whose classes stand in a file of their own, as those of ImageNet's validation set.

``ILSVRC2012_val_00000001.JPEG`` is image 1, wherever it lies: in one folder with all others, in the
published archive, or in the folder of its class.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ...errors import FormatError, UsageError
from ...system.files import shown
from ..trees.listing import Parts, Tree
from .truth import GROUND_TRUTH, Truth

__all__ = ["beside", "is_flat", "is_validation", "labelled"]

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+", re.IGNORECASE)
# What lies beside the images, or in the folder with them, under its published name.
_BESIDE = (
    "ILSVRC2012_devkit_t12",
    "ILSVRC2012_devkit_t12.tar.gz",
    GROUND_TRUTH,
    "val.txt",
    "LOC_val_solution.csv",
)


def is_validation(names: Iterable[str]) -> bool:
    """Return whether all names are those of ImageNet's validation images."""
    found = [_NUMBER.fullmatch(os.path.basename(name)) for name in names]
    return bool(found) and all(found)


def is_flat(tree: Tree) -> bool:
    """Return whether images lie at the top and in no folders: then no folder is their class."""
    return bool(tree.images_in(())) and not tree.with_images(())


def beside(path: str | os.PathLike[str]) -> str:
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
        "LOC_val_solution.csv, or ReaL's real.json (--truth FILE)"
    )
    if found:
        raise UsageError(
            f"beside the images of {shown(path)} there are {', '.join(map(shown, found))}; say "
            f"which of them has their classes: {kinds}"
        )
    raise UsageError(
        f"the images of {shown(path)} are in no folders of classes, and nothing beside them says "
        f"which classes they have; give {kinds}"
    )


def labelled(tree: Tree, name: str, truth: Truth) -> tuple[list[Parts], np.ndarray, Counter[str]]:
    """Return the images of a tree, their labels, and a count of what is left out.

    Labels are int64 [n]; or [n, classes] of 0 and 1 where there may be several right answers. Then
    an image without any is left out.

    Raises
    ------
    FormatError
        An image has no class there.
    """
    left_out: Counter[str] = Counter()
    places, labels = [], []
    for place in sorted(tree.walk((), left_out), key=lambda parts: (parts[-1], parts)):
        answers = truth.answers[_place(place[-1], name, truth)]
        if not answers:
            left_out["image without a right answer"] += 1
            continue
        places.append(place)
        labels.append(answers)
    seen = Counter(place[-1] for place in places)
    if twice := [one for one, count in seen.items() if count > 1]:
        raise FormatError(f"{name} has two images called {twice[0]!r}; remove one")
    if not truth.several:
        return places, np.array([one for (one,) in labels], np.int64), left_out
    every = np.zeros((len(labels), len(truth.classes)), np.int64)
    for row, answers in zip(every, labels, strict=True):
        row[list(answers)] = 1
    return places, every, left_out


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
