"""Checks of values that come from outside: whole numbers, and JSON objects with exact fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, SupportsInt, TypeGuard, TypeVar

from ..errors import FormatError, UsageError

__all__ = ["from_fields", "is_int", "is_whole"]

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
