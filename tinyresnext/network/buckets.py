"""The gradients of a step in one flat array, cut into buckets that ranks add up early.

They lie in the order in which the backward pass makes them final. So each bucket is one piece of
memory, and the ranks begin to add it up as soon as its last gradient is final, while the layers
before are still being computed (Li et al. 2020, "PyTorch Distributed", section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from ..ops.contract import Array, Backend
from ..system.ranks import Ranks
from .buffers import ALIGNED
from .tape import Gradient

LEAST = 4 << 20  # bytes of a bucket, but for the last: each has a cost of its own


class Buckets:
    """The flat array, and what the ranks add up of it when.

    Parameters
    ----------
    ops : Backend
    ranks : Ranks
    backward : sequence of Gradient
        In the order in which they are computed.
    names : mapping of int to str
        The gradients that are kept: their names, by the identity of their stand-ins.
    shapes : mapping of str to tuple of int
    dtype : NumPy type

    Attributes
    ----------
    gradients : dict of str to array
        Views of the flat array, in the order of ``shapes``.
    flat : array
        All of these, with zeros between them.
    ends : dict of int to array
        By the number of the call in ``backward`` that makes its last gradient final: the bucket.
    """

    def __init__(
        self,
        ops: Backend,
        ranks: Ranks,
        backward: Sequence[Gradient],
        names: Mapping[int, str],
        shapes: Mapping[str, tuple[int, ...]],
        dtype: Any,
    ) -> None:
        self._ops, self._ranks = ops, ranks
        self._begun: list[tuple[np.ndarray, Array]] = []
        final: dict[str, int] = {}
        for number, gradient in enumerate(backward):
            final |= {names[id(out)]: number for out in gradient.out if id(out) in names}
        itemsize = np.dtype(dtype).itemsize
        step, order = ALIGNED // itemsize, sorted(final, key=final.__getitem__)
        sizes = [-(-math.prod(shapes[name]) // step) * step for name in order]
        stops = list(accumulate(sizes))
        starts = dict(zip(order, [0, *stops], strict=False))
        self._shapes, self._starts, self._size = shapes, starts, sum(sizes)
        flat, self.gradients = self.places(dtype)
        self.flat = flat
        self.ends: dict[int, Array] = {}
        first = 0
        for name, stop, later in zip(order, stops, [*order[1:], None], strict=True):
            full = (stop - first) * itemsize >= LEAST
            if later is None or (full and final[later] > final[name]):
                self.ends[final[name]] = ops.view(flat, (stop - first,), first)
                first = stop

    def places(self, dtype: Any) -> tuple[Array, dict[str, Array]]:
        """Return another such array of zeros, and its views; what is added in gaps is finite."""
        flat = self._ops.upload(np.zeros(self._size, dtype))
        found = self._shapes.items()
        return flat, {name: self._ops.view(flat, at, self._starts[name]) for name, at in found}

    def between(self, calls: Sequence[Callable[[], Any]]) -> list[Callable[[], Any]]:
        """Return the calls of the backward pass, each with what the ranks do after it."""
        if self._ranks.count == 1:
            return list(calls)
        made: list[Callable[[], Any]] = []
        for number, call in enumerate(calls):
            bucket = self.ends.get(number)
            then = self._ranks.progress if bucket is None else partial(self._start, bucket)
            made += [call, then]
        return made

    def wait(self) -> None:
        """Return when every gradient is the sum over all ranks."""
        self._ranks.wait()
        for host, bucket in self._begun:
            if host is not bucket:
                self._ops.upload(host, out=bucket)
        self._begun.clear()

    def _start(self, bucket: Array) -> None:
        """Let the ranks begin to add up a bucket."""
        host = self._ops.download(bucket)
        self._ranks.start(host)
        self._begun.append((host, bucket))
