"""Memory for the values of a plan or a training step, reused when a value is not read any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


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
