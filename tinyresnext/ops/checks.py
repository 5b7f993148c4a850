"""The checks that all ops share (`tinyresnext.ops.shapes`), and their error messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Pair = int | Sequence[int]
Shape = tuple[int, ...]


class Shaped(Protocol):
    """Anything with a shape: an array of any backend, or a stand-in for one."""

    @property
    def shape(self) -> Shape:
        """Return the number of values along each axis."""


def pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    """Return ``(vertical, horizontal)`` from one number for both directions, or from two.

    Raises
    ------
    ValueError
        The numbers are not whole, or one is below ``least``.
    """
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(
        isinstance(v, (int, np.integer)) and least <= v < 2**31 for v in both
    ):
        raise ValueError(
            f"{name} is {value!r}, expected one or two whole numbers, each at least {least}"
        )
    return int(both[0]), int(both[1])


def slide(
    op: str, length: int, kernel: int, stride: int, padding: int, ceil_mode: bool = False
) -> int:
    """Return how many windows fit along one direction; see `tinyresnext.ops.shapes.max_pool2d`.

    Raises
    ------
    ValueError
        Not even one window fits.
    """
    room = length + 2 * padding - kernel
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        count -= 1
    if count < 1 or length < 1:
        raise ValueError(
            f"{op}: a window of {kernel} does not fit into {length} with padding {padding}; "
            "use a larger image"
        )
    return count


def dimensions(name: str, a: Shaped, axes: str) -> Shape:
    """Return the shape of an array; raise `ValueError` if it has other axes than those named."""
    if len(a.shape) != len(axes.split()):
        raise ValueError(f"{name} has shape {tuple(a.shape)}, expected [{', '.join(axes.split())}]")
    return tuple(a.shape)


def same(op: str, name: str, a: Shaped | None, shape: Shape) -> None:
    """Raise `ValueError` if an array is given and its shape is another one."""
    if a is not None and tuple(a.shape) != tuple(shape):
        raise ValueError(f"{op}: {name} has shape {tuple(a.shape)}, expected {tuple(shape)}")
