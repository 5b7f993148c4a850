"""The options for what a recipe says: one for each setting that `training.recipes` declares."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import UsageError
from ...training.recipes import RECIPES, SOURCES, Recipe, recipe
from ...training.recipes.kinds import Choice, Flag, Kind, Option
from ...training.recipes.recipe import PARTS, settings
from ...training.recipes.steps import enough
from ..options import braces, word
from ..output.progress import say

# Settings that count only beside another one: when they count, and what to give.
_BESIDE: tuple[tuple[tuple[str, ...], Callable[[Recipe], bool], str], ...] = (
    (("milestones", "gamma"), lambda r: r.schedule.schedule == "step", "--schedule step"),
    (("ema_every", "ema_warmup"), lambda r: r.ema > 0, "--ema, such as 0.999"),
    (
        ("erase_count", "erase_with"),
        lambda r: r.augmentation.erase > 0,
        "--random-erase, such as 0.25",
    ),
    (("padding", "fill"), lambda r: r.augmentation.crop in ("pad", "usual"), "--crop pad"),
    (
        ("fill",),
        lambda r: r.augmentation.padding > 0 or r.augmentation.crop == "usual",
        "--padding, such as 4",
    ),
)


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
                group.add_argument(flag, dest=name, type=value, metavar=metavar, help=help)


def _flag(name: str, option: Option) -> str:
    """Return the option of a setting as it is typed."""
    return "--" + (option.flag or name.replace("_", "-"))


def _value(name: str, kind: Kind) -> tuple[Callable[[str], Any], str]:
    """Return what reads the value of a setting, and what stands for the value in the help."""
    if isinstance(kind, Choice):
        return word(kind.words), braces(kind.words)

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


def typed_recipe(a: argparse.Namespace, images: int | None = None) -> Recipe:
    """Return the recipe that was named, with the settings that were typed.

    Where none was named, it is the usual one, with enough steps of so many images; what was changed
    for that is said.
    """
    known = ((name, vars(a).get(name)) for name, _ in settings())
    typed = {name: value for name, value in known if value is not None}
    plain = recipe(a.recipe or a.usual_recipe, **typed)
    _check_typed(a, typed, plain)
    if images is None or a.recipe is not None:
        return plain
    found = enough(recipe(a.usual_recipe), images, typed)
    ours, usual = found.to_json(), plain.to_json()
    if changed := [name for name in ours if ours[name] != usual[name]]:
        options = " ".join(f"--{name} {ours[name]:g}" for name in changed)
        others = ", ".join(f"{usual[name]:g}" for name in changed)
        say(f"for {images:,} images: {options} in place of {others}")
    return found


def described(a: argparse.Namespace, chosen: Recipe) -> str:
    """Return what a recipe is, what its authors report, and which settings are others here."""
    name = a.recipe or a.usual_recipe
    plain, ours = RECIPES[name].to_json(), chosen.to_json()
    changed = [_flag(key, option) for key, option in settings() if ours[key] != plain[key]]
    others = f"\nchanged from it: {', '.join(changed)}" if changed else ""
    return SOURCES[name].said(name) + others


def _check_typed(a: argparse.Namespace, typed: Mapping[str, Any], chosen: Recipe) -> None:
    """Refuse what was typed and would change nothing; what a named recipe has may be idle."""
    for names, counts, give in _BESIDE:
        if not counts(chosen) and (idle := _not_usual(typed, names)):
            raise UsageError(f"{' and '.join(idle)} would change nothing here: give {give}, too")
    if typed.get("schedule") == "step" and not chosen.schedule.milestones:
        raise UsageError(
            "--schedule step has no milestones, so the learning rate would never fall: give "
            "--milestones, such as 0.5,0.75, too"
        )
    if typed.get("crop") == "pad" and not chosen.augmentation.padding and "padding" not in typed:
        raise UsageError("--crop pad has a padding of 0: give --padding, such as 4, too")
    if typed.get("entropy") == "softmax" and a.head == "sigmoid":
        raise UsageError(
            "--head sigmoid has the binary cross entropy; leave out --entropy softmax, or the head"
        )


def check_padding(a: argparse.Namespace, chosen: Recipe, side: int) -> None:
    """Refuse a padding that was typed where images of this size are not padded."""
    from ...training.samples.augmentation import SMALL

    idle = _not_usual(vars(a), ("padding", "fill"))
    if idle and chosen.augmentation.crop == "usual" and side > SMALL:
        raise UsageError(
            f"{' and '.join(idle)} would change nothing here: images of {side} pixels are not "
            "padded but cropped at random; give --crop pad, too"
        )


def _not_usual(typed: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """Return the options among these names that were typed with another value than the usual."""
    fields = [field for part in (Recipe, *PARTS.values()) for field in dataclasses.fields(part)]
    usual, known = {field.name: field.default for field in fields}, dict(settings())
    return [
        _flag(name, known[name])
        for name in names
        if typed.get(name) is not None and typed[name] != usual[name]
    ]
