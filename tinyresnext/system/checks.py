"""Checks of values from outside: whole numbers, JSON objects with exact fields, names of files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, SupportsInt, TypeGuard, TypeVar

from ..errors import FormatError, UsageError
from .files import shown

__all__ = ["check_ending", "from_fields", "is_int", "is_whole"]

T = TypeVar("T")


def is_whole(value: object, least: int, most: float = math.inf) -> TypeGuard[SupportsInt]:
    """Return whether a value is an integer of Python or NumPy in a range, both ends included.

    A bool is no integer here: who passes True for a number of threads has mixed up two arguments.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        return False
    return least <= int(value) <= most


def is_int(value: object, least: int, most: float = math.inf) -> TypeGuard[int]:
    """Return whether a value is exactly of the type int, and in a range, both ends included.

    Values that were read from a file, or that are written to one, must pass this stricter check.
    """
    return type(value) is int and least <= value <= most


def from_fields(make: Callable[..., T], names: Iterable[str], value: object, what: str) -> T:
    """Build an object from a JSON object that must have exactly the named fields.

    Parameters
    ----------
    make : callable
        Receives the fields as keyword arguments; raises `UsageError` if a value is of the wrong
        kind or out of range.
    names : iterable of str
        Of the fields.
    value : object
        What was read from JSON.
    what : str
        What the object describes, for messages, such as "the architecture".

    Raises
    ------
    FormatError
        ``value`` is not an object, a field is missing or unknown, or a value is wrong.
    """
    names = list(names)
    if not isinstance(value, Mapping) or set(value) != set(names):
        found: Any = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise FormatError(
            f"{what} has the fields {found!s:.200}; expected an object with exactly "
            f"{', '.join(names)}"
        )
    try:
        return make(**value)
    except UsageError as error:
        raise FormatError(f"{what} cannot be used: {error}") from error


def check_ending(path: str | os.PathLike[str], endings: Iterable[str], what: str) -> None:
    """Raise `UsageError` unless the name of a file to write says what will be in it.

    Other programs believe the name. Of ``endings``, an empty one means that none is right, too.
    """
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise UsageError(f"the file to write is {path!r:.80}; give its name") from None
    ending, known = os.path.splitext(name)[1], list(endings)
    whole = tuple(one for one in known if one)
    if not (name.lower().endswith(whole) or ("" in known and not ending)):
        found = f"ends in {ending!r}" if ending else "has no ending"
        raise UsageError(
            f"{shown(name)} {found}; {what} is written to a file that ends in {' or '.join(whole)}"
        )
