"""The options for what a recipe says: one for each setting that `training.recipes` declares."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...system.files import shown
from ...system.words import as_typed
from ...training.recipes import RECIPES, SOURCES, Recipe, recipe
from ...training.recipes.kinds import Choice, Flag, Kind, Option
from ...training.recipes.recipe import settings
from ...training.recipes.steps import enough
from ..options import braces, word
from ..output.progress import say
from ..output.tables import target

if TYPE_CHECKING:
    from ...data.dataset import Dataset


DRAWN = "dry-run.png"  # by `--dry-run`; each draws it anew


def add_recipe(c: argparse.ArgumentParser, usual: str, *, first_weights: bool) -> None:
    """Add ``--recipe`` and an option for every setting of a recipe.

    Parameters
    ----------
    c : argparse.ArgumentParser
    usual : str
        The recipe where none is named.
    first_weights : bool
        Whether settings that are only about a network with random weights have options.
    """
    c.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"settings for the options not given: {', '.join(RECIPES)} ({usual}, and if there "
        "are few images, a smaller mini-batch and rate, and more epochs)",
    )
    c.set_defaults(usual_recipe=usual)
    group = c.add_argument_group("in place of what the recipe says")
    for name, option in settings():
        if first_weights or not option.first_weights:
            flag = _flag(name, option)
            help = option.help.replace("%", "%%")  # argparse would read it as a format
            if isinstance(option.kind, Flag):
                boolean = argparse.BooleanOptionalAction
                group.add_argument(flag, dest=name, action=boolean, default=None, help=help)
            else:
                value, metavar = _value(name, option.kind)
                alone = option.kind.alone if isinstance(option.kind, Choice) else ""
                group.add_argument(
                    flag,
                    dest=name,
                    nargs="?" if alone else None,
                    const=alone or None,
                    type=value,
                    metavar=metavar,
                    help=help,
                )


def _flag(name: str, option: Option) -> str:
    """Return the option of a setting as it is typed."""
    return "--" + (option.flag or name.replace("_", "-"))


def _value(name: str, kind: Kind) -> tuple[Callable[[str], Any], str]:
    """Return what reads the value of a setting, and what stands for the value in the help."""
    if isinstance(kind, Choice):
        return word(kind.words, "DATA" if kind.alone else ""), braces(kind.words)

    def read(text: str) -> Any:
        try:
            value = kind.parse(text)
        except ValueError:
            value = text  # the check then says what is wrong with it
        try:
            return kind.check(name, value)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read, kind.metavar


def typed_recipe(a: argparse.Namespace, dataset: Dataset | None = None) -> Recipe:
    """Return the recipe that was named, with the settings that were typed.

    Where none was named, it is the usual one, with enough steps of the images of a data set; what
    was changed for that is said.
    """
    known = ((name, vars(a).get(name)) for name, _ in settings())
    typed = {name: value for name, value in known if value is not None}
    name = a.recipe or a.usual_recipe
    # What began a run is not judged again: it must stay what it was.
    plain = recipe(name).changed(typed) if a.resume else recipe(name, **typed)
    if typed.get("entropy") == "softmax" and not a.resume:
        _check_entropy(a.head, dataset)
    if dataset is None or a.recipe is not None:
        return plain
    images = len(dataset)
    found = enough(recipe(a.usual_recipe), images, typed)
    ours, usual = found.to_json(), plain.to_json()
    if changed := [name for name in ours if ours[name] != usual[name]]:
        options = " ".join(f"--{name} {ours[name]:g}" for name in changed)
        others = ", ".join(f"{usual[name]:g}" for name in changed)
        batch = f" and --batch {typed['batch']}" if "lr" in changed and "batch" in typed else ""
        say(f"for {images:,} images{batch}: {options} in place of {others}")
    return found


def _check_entropy(head: str | None, dataset: Dataset | None) -> None:
    """Refuse the softmax cross entropy under a sigmoid, be it typed or that of several labels."""
    if head == "sigmoid":
        raise UsageError(
            "--head sigmoid has the binary cross entropy; leave out --entropy softmax, or the head"
        )
    if head is None and dataset is not None and dataset.labels.ndim == 2:
        raise UsageError(
            "images with any number of labels get a sigmoid head, which has the binary cross "
            "entropy; leave out --entropy softmax, or, if each image has exactly one label, give "
            "--head softmax"
        )


def described(a: argparse.Namespace, chosen: Recipe) -> str:
    """Return what a recipe is, what its authors report, and which settings are others here."""
    name = a.recipe or a.usual_recipe
    plain, ours = RECIPES[name].to_json(), chosen.to_json()
    changed = [_flag(key, option) for key, option in settings() if ours[key] != plain[key]]
    others = f"\nchanged from it: {', '.join(changed)}" if changed else ""
    return SOURCES[name].said(name) + others


def drawn_target(file: str) -> str:
    """Return the file to draw into; refuse one that exists, unless ``--dry-run`` has drawn it.

    It is then said that the file is written over.
    """
    from ...system.writing import present

    drawn = target(file, force=file == DRAWN, remedy="give another name")
    if present(file):
        say(f"{DRAWN} is written over; --dry-run FILE.png draws into another file")
    return drawn


def validated_on(a: argparse.Namespace, threads: int) -> Dataset:
    """Open the images of ``--val``, and say what was found.

    Raises
    ------
    UsageError
        They would be the images that the network is trained on, and nobody has asked for that.
    ImageError, FormatError, UnsafeError
        As of `open_dataset`.
    """
    from ...data.dataset import ALL
    from ...data.open import open_dataset

    found = open_dataset(a.val, a.val_split, a.broken, threads=threads, first="val")
    part = a.val_split or found.part
    if part == ALL and os.path.exists(a.data) and os.path.samefile(a.val, a.data):
        raise UsageError(
            f"{shown(a.val)} has no part for validation, and the network is trained on all its "
            "images; hold some of them out with --val-part 0.2 in place of --val, or give another "
            "data set"
        )
    say(f"{shown(a.val)}, {part}: {found.found()}")
    return found


def say_of_unused(a: argparse.Namespace, dataset: Dataset) -> None:
    """Say that a new run without validation has images for it, if the data set has such a part."""
    from ...data.rules import meant

    if not a.resume and dataset.part == "val" and meant(a.split) == "train":
        say(
            f"{shown(a.data)} has a part val, which is not used: with "
            f"{shown(as_typed(['--val', a.data]))} the network is evaluated on it after each epoch"
        )
