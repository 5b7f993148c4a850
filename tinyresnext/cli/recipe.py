"""The options for what a recipe says: one for each setting that `training.recipes` declares."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from ..training.recipes import RECIPES, Recipe, recipe
from ..training.recipes.kinds import Choice, Flag, Kind
from ..training.recipes.recipe import settings
from .options import braces, word


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
        default=usual,
        metavar="NAME",
        help=f"settings for the options not given: {', '.join(RECIPES)} ({usual})",
    )
    group = c.add_argument_group("in place of what the recipe says")
    for name, option in settings():
        if first_weights or not option.first_weights:
            flag = "--" + (option.flag or name.replace("_", "-"))
            help = option.help.replace("%", "%%")  # argparse would read it as a format
            if isinstance(option.kind, Flag):
                boolean = argparse.BooleanOptionalAction
                group.add_argument(flag, dest=name, action=boolean, default=None, help=help)
            else:
                value, metavar = _value(name, option.kind)
                group.add_argument(flag, dest=name, type=value, metavar=metavar, help=help)


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


def typed_recipe(a: argparse.Namespace) -> Recipe:
    """Return the recipe that was named, with the settings that were typed."""
    typed = {name: vars(a).get(name) for name, _ in settings()}
    return recipe(a.recipe, **{name: value for name, value in typed.items() if value is not None})
