"""What the contract (`tinyresnext.ops.shapes`) checks with: the words of its refusals."""

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
        """How many values along each axis."""


def pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    """One number for both directions, or two: always as ``(vertical, horizontal)``, each at least ``least``."""
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
    """How many windows fit along one direction."""
    room = length + 2 * padding - kernel
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        count -= 1
    if count < 1 or length < 1:
        raise ValueError(
            f"{op}: a window of {kernel} does not fit into {length} with padding {padding}; use a larger picture"
        )
    return count


def dimensions(name: str, a: Shaped, axes: str) -> Shape:
    """The shape, when it has the axes that are named."""
    if len(a.shape) != len(axes.split()):
        raise ValueError(f"{name} has shape {tuple(a.shape)}, expected [{', '.join(axes.split())}]")
    return tuple(a.shape)


def same(op: str, name: str, a: Shaped | None, shape: Shape) -> None:
    """An optional array must have this very shape."""
    if a is not None and tuple(a.shape) != tuple(shape):
        raise ValueError(f"{op}: {name} has shape {tuple(a.shape)}, expected {tuple(shape)}")
