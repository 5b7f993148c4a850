"""The kinds of fields that a recipe has: which values a field takes, and how a person types one.

A field is declared once, with `setting`. Its kind checks values from Python, from JSON and from the
command line with the same words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from ...errors import UsageError
from ...images.augmentation.names import check_name
from ...system.checks import is_int


class Kind(Protocol):
    """Which values a field takes.

    Attributes
    ----------
    metavar : str
        What stands for a value in the help of the command line; empty for a flag.
    """

    @property
    def metavar(self) -> str:
        """Return what stands for a value in the help."""

    def parse(self, text: str) -> Any:
        """Return the value of what was typed; raise `ValueError` if it is of another kind."""

    def check(self, name: str, value: Any) -> Any:
        """Return the value as it is kept; raise `UsageError` if it is not allowed."""


class Whole(NamedTuple):
    """A whole number in a range."""

    least: int
    most: int
    metavar: str = "N"

    def parse(self, text: str) -> int:
        """Return the number that was typed."""
        return int(text)

    def check(self, name: str, value: Any) -> int:
        """Return the number; raise `UsageError` if it is another type or out of range."""
        if not is_int(value, self.least, self.most):
            raise UsageError(
                f"{name} is {value!r}: expected a whole number from {self.least} to {self.most}"
            )
        return value


class Real(NamedTuple):
    """A number in a range."""

    least: float
    most: float
    metavar: str = "X"

    def parse(self, text: str) -> float:
        """Return the number that was typed."""
        return float(text)

    def check(self, name: str, value: Any) -> float:
        """Return the number as a float; raise `UsageError` if it is no number or out of range."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not self.least <= value <= self.most:
            raise UsageError(
                f"{name} is {value!r}: expected a number from {self.least:g} to {self.most:g}"
            )
        return float(value)


class Choice(NamedTuple):
    """One of a few words; ``alone`` is what the option means without one, if it may stand so."""

    words: tuple[str, ...]
    metavar: str = ""
    alone: str = ""

    def parse(self, text: str) -> str:
        """Return the word that was typed."""
        return text

    def check(self, name: str, value: Any) -> str:
        """Return the word; raise `UsageError` if it is another."""
        if value not in self.words:
            raise UsageError(f"{name} is {value!r}: expected one of {', '.join(self.words)}")
        return str(value)


class Flag(NamedTuple):
    """Yes or no."""

    metavar: str = ""

    def parse(self, text: str) -> bool:
        """Return whether the word ``True`` was typed."""
        if text not in ("True", "False"):
            raise ValueError(text)
        return text == "True"

    def check(self, name: str, value: Any) -> bool:
        """Return the flag; raise `UsageError` if it is no bool."""
        if type(value) is not bool:
            raise UsageError(f"{name} is {value!r}: expected True or False")
        return value


class Fractions(NamedTuple):
    """Parts of the run, each from 0.0 to 1.0, in order."""

    metavar: str = "X,X..."

    def parse(self, text: str) -> tuple[float, ...]:
        """Return the numbers that were typed with commas between them."""
        return tuple(float(part) for part in text.split(","))

    def check(self, name: str, value: Any) -> tuple[float, ...]:
        """Return the numbers as a tuple; raise `UsageError` if they are wrong or out of order."""
        sequence = isinstance(value, (tuple, list))
        if not sequence or not all(isinstance(part, float) and 0 <= part <= 1 for part in value):
            raise UsageError(
                f"{name} are {value!r}: expected parts of the run from 0.0 to 1.0, such as (0.5, "
                "0.75)"
            )
        if list(value) != sorted(value):
            raise UsageError(f"{name} are {value!r}: expected them in order")
        return tuple(value)


class Sides(NamedTuple):
    """Sides of images in pixels."""

    most: int
    metavar: str = "N,N..."

    def parse(self, text: str) -> tuple[int, ...]:
        """Return the numbers that were typed with commas between them."""
        return tuple(int(part) for part in text.split(","))

    def check(self, name: str, value: Any) -> tuple[int, ...]:
        """Return the numbers as a tuple; raise `UsageError` if one is no side."""
        sequence = isinstance(value, (tuple, list))
        if not sequence or not all(type(side) is int and 1 <= side <= self.most for side in value):
            raise UsageError(
                f"{name} are {value!r}: expected whole numbers of pixels, such as (20, 24, 28, 32)"
            )
        return tuple(value)


class Policy(NamedTuple):
    """The name of a policy of augmentation, or nothing."""

    metavar: str = "POLICY"

    def parse(self, text: str) -> str:
        """Return the name that was typed."""
        return text

    def check(self, name: str, value: Any) -> str:
        """Return the name; raise `UsageError` if there is no such policy."""
        if not isinstance(value, str):
            raise UsageError(f"{name} is {value!r}: expected the name of a policy, such as 'ra'")
        if value:
            check_name(value)
        return value


class Option(NamedTuple):
    """What the command line says of a field.

    Parameters
    ----------
    kind : Kind
    help : str
    flag : str, optional
        The option's name, where it is not the field's.
    first_weights : bool
        Whether it is only about a network that begins with random weights: fine-tuning lacks it.
    """

    kind: Kind
    help: str
    flag: str = ""
    first_weights: bool = False


def setting(
    default: Any, kind: Kind, help: str, *, flag: str = "", first_weights: bool = False
) -> Any:
    """Declare a field of a recipe: its default, which values it takes, and its help.

    Parameters
    ----------
    default
        Its value where none is given; ``dataclasses.MISSING`` if one must be given.
    kind, help, flag, first_weights
        As in `Option`.
    """
    option = Option(kind, help, flag, first_weights)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={"option": option})
    return dataclasses.field(default=default, metadata={"option": option})


def options(part: Any) -> Iterator[tuple[str, Option]]:
    """Yield name and option of every field that `setting` declared in a dataclass, in order."""
    for field in dataclasses.fields(part):
        if "option" in field.metadata:
            yield field.name, field.metadata["option"]


def check_fields(part: Any) -> None:
    """Check every field of a frozen dataclass by its kind, and keep what the check returns.

    Raises
    ------
    UsageError
        A value is not allowed.
    """
    for name, option in options(part):
        object.__setattr__(part, name, option.kind.check(name, getattr(part, name)))
