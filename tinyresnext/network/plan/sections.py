"""How many samples go through each call of a plan together.

Whatever a call reads comes through the caches. One sample at a time, the weights of a layer are
read once for every sample; all samples of a mini-batch together, they are read once, but the
values of so many samples do not stay in the caches from one call to the next. In the first stages
of a network values are large and weights small; in the last ones it is the other way round. So a
plan is cut into sections, and a section takes a multiple of the samples of the one before it::

      section 1   [0]   [1]            [2]   [3]              [4]   [5]           [6]   [7]
      section 2            [0 1]                [2 3]                [4 5]           [6 7]
      section 3                                        [0 1 2 3]                           [4 5 6 7]

The numbers divide each other, so that no call is prepared for a remainder. A section ends where
the calls behind it read one value only: with the block of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from ..tape import Call
from ..trace import inputs

WEIGHING = ("conv2d", "conv2d_int8", "linear")


class Section(NamedTuple):
    """The calls ``first`` to ``last`` of a plan, which take so many samples together."""

    first: int
    last: int
    together: int


def sections(
    calls: Sequence[Call],
    x: Any,
    sizes: Mapping[int, int],
    n: int,
    at_once: Callable[[int, int, int], int],
) -> list[Section]:
    """Cut calls into sections.

    Parameters
    ----------
    calls : sequence of Call
    x : stand-in
        Their input.
    sizes : mapping
        How many numbers of one sample the input has, and each result, by identity.
    n : int
        How many samples there are; the number of the last section divides it.
    at_once : function
        The backend's.
    """
    found: list[Section] = []
    weights, values, last = 0, 0, len(calls)
    for first in reversed(cuts(calls, x)):
        end = found[0].first if found else len(calls)
        for call in calls[first:last]:
            weights += prod(call.args[1].shape) if call.op in WEIGHING else 0
            read = [sizes[id(a)] for a in inputs(call) if id(a) in sizes]
            values += sum(read) + sizes[id(call.out)]
        last = first
        if first and not weights:
            continue  # a pooling belongs to what is before it
        n = at_once(n, weights, values)
        if found and found[0].together == n:
            end = found.pop(0).last
        found.insert(0, Section(first, end, n))
        weights = values = 0
    return found


def cuts(calls: Sequence[Call], x: Any) -> list[int]:
    """Return the calls before which a section may begin: only one value is read from there on."""
    made = {id(x): -1} | {id(call.out): t for t, call in enumerate(calls)}
    last = {id(a): t for t, call in enumerate(calls) for a in inputs(call) if id(a) in made}
    crossing = [
        [value for value, until in last.items() if made[value] < t <= until]
        for t in range(len(calls))
    ]
    return [t for t, call in enumerate(calls) if t == 0 or crossing[t] == [id(calls[t - 1].out)]]
