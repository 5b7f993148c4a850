"""Checks of the numbers that callers pass to `images` and `data`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real

from ..errors import ImageError, UsageError
from ..system.checks import is_whole

__all__ = ["check_range", "is_between", "short", "too_much", "whole_number", "within_memory"]


def whole_number(
    name: str, value: object, least: int, most: int | None = None, unit: str = ""
) -> int:
    """Return a whole number as an int; NumPy's integers are accepted, booleans are not.

    Parameters
    ----------
    name, unit
        For the message: the name of the argument, and words behind "whole number", such as
        " of pixels".
    least, most
        The smallest and the largest number that are accepted; None for no upper limit.

    Raises
    ------
    UsageError
        `value` is no whole number, or it is out of range.
    """
    if is_whole(value, least, math.inf if most is None else most):
        return int(value)
    span = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise UsageError(f"{name} is {short(value)}; give a whole number{unit} {span}")


def is_between(value: object, least: float, most: float) -> bool:
    """Return whether a value is a real number from `least` to `most`; NaN is not."""
    try:
        return isinstance(value, Real) and least <= float(value) <= most
    except OverflowError:  # an int beyond the range of float
        return False


def check_range(name: str, value: object, most: float) -> None:
    """Raise `UsageError` for anything but two numbers, 0 < least <= largest <= most."""
    if (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(is_between(each, 0, most) for each in value)
        and 0 < value[0] <= value[1]
    ):
        return
    raise UsageError(
        f"{name} is {value!r}; "
        f"give two numbers, the least and the largest, above 0 and up to {most:g}"
    )


def too_much(name: str) -> ImageError:
    """Return the error of an image for which there is not enough memory.

    It is the image's: a damaged file may ask for much, and the next image may fit again.
    """
    return ImageError(
        f"{name} needs more memory than there is; scale it down, or allow the process more memory"
    )


@contextmanager
def within_memory(name: str) -> Iterator[None]:
    """Raise the error of `too_much` in the place of a `MemoryError`."""
    try:
        yield
    except MemoryError as error:
        raise too_much(name) from error


def short(value: object) -> str:
    """Quote a value in at most 80 characters, whatever it is."""
    try:
        text = repr(value)
    except Exception as error:  # such as an int of more digits than Python prints
        text = f"a {type(value).__name__} ({error})"
    return text if len(text) <= 80 else text[:77] + "..."
