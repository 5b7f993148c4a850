"""Memory for the values of a plan or a training step, reused when a value is not read any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from ..errors import OutOfMemoryError
from ..ops.bfloat16 import HALF
from ..ops.contract import Array, Backend
from .tape import Gradient

Made = TypeVar("Made")
ALIGNED = 256  # bytes; every buffer begins at a multiple


def assign_buffers(
    steps: Sequence[tuple[Sequence[Any], Iterable[Any]]],
    sizes: Sequence[Sequence[int]],
    over: Mapping[int, Any] | None = None,
) -> tuple[dict[int, int], list[int]]:
    """Give each value a buffer, which another value gets when the first is not read any more.

    Parameters
    ----------
    steps : sequence of (made, read)
        The values that each step makes and those that it reads, distinguished by identity.
    sizes : sequence of sequence of int
        How many numbers each of the values has that a step makes.
    over : mapping, optional
        From the identity of a value to one that the same step reads and nobody after it, whose
        buffer it takes.

    Returns
    -------
    places : dict
        The buffer of each value that is made, by its identity.
    buffers : list of int
        How many numbers each buffer must hold.
    """
    over = over or {}
    last = {id(value): t for t, (made, read) in enumerate(steps) for value in (*made, *read)}
    places: dict[int, int] = {}
    buffers: list[int] = []
    free: list[int] = []
    for t, (made, read) in enumerate(steps):
        for value, need in zip(made, sizes[t], strict=True):
            if id(value) in over:
                best = places[id(over[id(value)])]
                # The buffer is not free when the value that was in it is not needed any more.
                last[id(over[id(value)])] = -1
            else:
                # The smallest free buffer that is large enough; else the largest, which then grows;
                # else a new one.
                best = min(
                    free,
                    key=lambda b: (buffers[b] < need, abs(buffers[b] - need)),
                    default=len(buffers),
                )
                if best == len(buffers):
                    buffers.append(need)
                else:
                    free.remove(best)
                    buffers[best] = max(buffers[best], need)
            places[id(value)] = best
        free += {
            places[id(value)]
            for value in (*made, *read)
            if last[id(value)] == t and id(value) in places
        }
    return places, buffers


def kept_as(ops: Backend, dtype: Any, value: Any) -> np.dtype:
    """Return the type in which a step stores a value: in bfloat16, that of images is HALF."""
    images = ops.precision == "bfloat16" and len(value.shape) == 4
    return HALF if images else np.dtype(dtype)


def assign_by_kind(
    steps: Sequence[tuple[Sequence[Any], Iterable[Any]]],
    kind: Callable[[Any], Any],
    over: Mapping[int, Any],
) -> list[tuple[np.dtype, list[tuple[Any, int]], list[int]]]:
    """Assign buffers as `assign_buffers` does, where values of one type share memory.

    Parameters
    ----------
    steps, over
        As there; a value that is written over another has its type.
    kind : callable
        Returns the NumPy type of a value.

    Returns
    -------
    list of (type, [(value, its buffer)], buffers)
    """
    found = []
    for one in dict.fromkeys(kind(value) for made, _ in steps for value in made):
        own = [([value for value in made if kind(value) == one], read) for made, read in steps]
        sizes = [[value.size for value in made] for made, _ in own]
        places, buffers = assign_buffers(own, sizes, over)
        each = [(value, places[id(value)]) for made, _ in own for value in made]
        found.append((one, each, buffers))
    return found


def allocate(ops: Backend, buffers: Sequence[int], dtype: Any) -> list[Array]:
    """Return memory for buffers of so many numbers: one allocation, cut into parts.

    Raises
    ------
    OutOfMemoryError
        The device has not as much.
    """
    step = ALIGNED // np.dtype(dtype).itemsize
    ends = list(accumulate(-(-size // step) * step for size in buffers))
    arena = ops.empty((ends[-1] if ends else 0,), dtype)
    starts = [0, *ends[:-1]]
    return [ops.view(arena, (size,), start) for size, start in zip(buffers, starts, strict=True)]


def with_room(make: Callable[[], Made], kept: MutableMapping[Any, Any]) -> Made:
    """Return what ``make`` makes; where memory is short, drop the plans kept, and make it again.

    Who else holds one of these can go on with it, and has its memory.

    Raises
    ------
    OutOfMemoryError
        There is not enough memory without them either.
    """

    def in_parts(made: Any) -> bool:
        return any(plan.in_parts for plan in (made if isinstance(made, list) else [made]))

    made: Made | None = None
    try:
        made = make()
    except OutOfMemoryError:
        if not kept:
            raise
    if made is None or (kept and in_parts(made)):
        made = None  # its memory is needed, too
        kept.clear()
        made = make()
    return made


def too_large(x_shape: Sequence[int], size: int, error: OutOfMemoryError) -> OutOfMemoryError:
    """Return the error for a mini-batch that a device cannot train on.

    Parameters
    ----------
    x_shape : (n, h, w, channels)
        Of the images that are computed at once: a mini-batch, or one of its parts.
    size : int
        The bytes of all buffers; 0 if the device was full before they were counted.
    error : OutOfMemoryError
        What the device said.
    """
    n, side, *_ = x_shape
    if not size or not error.free:  # a processor does not know what is free
        return OutOfMemoryError(str(error), error.wanted, error.free)
    # The buffers are one allocation; where that succeeded, the kernels needed more besides.
    free, needed = error.free, max(size, error.wanted)
    if error.wanted < size:
        free, needed = error.free + size, size + error.wanted
    fitting = int(0.9 * n * free / needed)
    fits = (
        f"{fitting} at once fit: give a smaller --batch, or more --parts of it, so that a part has "
        f"{fitting} at most"
    )
    return OutOfMemoryError(
        f"a step of training on {n} images of {side} pixels at once keeps {size / 2**20:,.0f} MiB "
        f"of values, and the device has {free / 2**20:,.0f} MiB left; "
        + (fits if fitting else "not even one image fits: give smaller images (--size)"),
        size,
        free,
    )


def in_place(backward: Sequence[Gradient], values: Mapping[int, Any]) -> dict[int, Any]:
    """Return which gradients are written over the one that they are computed from.

    Of a batch norm and of a scaling it is the gradient of the residual where there is one, else of
    the input.
    """
    over = {}
    for gradient in backward:
        place = {"batch_norm_train": 3, "excite": 2}.get(gradient.call.op)  # of a residual
        if place is not None:
            there = len(gradient.call.args) > place and gradient.out[place] is not None
            which = place if there else 0
            out = gradient.out[which]
            if out is not None and not gradient.more[which] and id(out) not in values:
                over[id(out)] = gradient.dy
    return over
