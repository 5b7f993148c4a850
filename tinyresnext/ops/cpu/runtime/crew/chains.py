"""One call of many: a region for steps in a row, and steps that take a few samples each in turn.

**A mini-batch in parts.** In training, a convolution reads what a batch norm wrote just before, and
then the statistics of the next one are taken of what it writes. A mini-batch is larger than the
caches, so each of the three would read it from memory. A chain lets them take turns, a part of the
samples at a time::

      step by step    normalise [0 1 2 3]  convolve [0 1 2 3]  sum [0 1 2 3]

      in parts        normalise [0 1]  convolve [0 1]  sum [0 1]  normalise [2 3]  convolve ...

A step is cut between its tasks, and a task is what it was: no bit changes. That is possible where
each step says how its tasks go through the samples (`Pace`), and where its results are not in the
way of those that another step has still to read: the memory of two steps is the same, or apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from ..compiling.ahead import compile_all
from ..kernel import compiles
from ..launch import threads_now
from .pace import Pace
from .walk import Step, _alone, _together, walk

# Bytes that a thread hands on in a part. Of the bundled model's kind, 256 images in bfloat16: parts
# of 2 to 8 images take 0.92 to 0.97 of the time in stage 1, and of 8 to 16 0.96 to 1.00 in stage 2.
PART = 1 << 20

Call = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Early:
    """A call that may be made before the steps in front of it.

    It reads nothing that they write, and writes nothing that they use.
    """

    call: Call

    def __call__(self) -> None:
        """Make the call."""
        self.call()


class Chain:
    """One call that makes many in their order; inside another chain it is these calls.

    Kernels are compiled, and tables made, when this is first called.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self.calls = list(calls)
        self._in_order: list[Call] | None = None

    def prepare(self) -> None:
        """Compile the kernels, and make the tables."""
        if self._in_order is None:
            in_order: list[Call] = []
            for are_steps, some in groupby(in_parts(self._flat()), _is_step):
                together: list[Any] = list(some)
                in_order += [_region(together)] if are_steps else together
            self._in_order = in_order

    def __call__(self) -> None:
        """Make all calls; steps in a row are one parallel region."""
        self.prepare()
        for call in self._in_order or ():
            call()

    def _flat(self) -> Iterator[Call]:
        """Yield the calls, those of inner chains too."""
        for call in self.calls:
            if isinstance(call, Chain):
                yield from call._flat()
            elif isinstance(call, Early) and isinstance(call.call, Chain):
                yield from map(Early, call.call._flat())
            else:
                yield call


def chain(calls: Iterable[Call]) -> Chain:
    """Return one call that makes all of these in their order, prepared."""
    made = Chain(calls)
    made.prepare()
    return made


def _is_step(call: Call) -> bool:
    """Return whether a call can be in a parallel region."""
    return isinstance(call, Step)


def _region(steps: list[Step]) -> Call:
    """Return one parallel region, whose kernels are compiled and whose table is made once."""
    if not compiles():
        return lambda: walk(steps)
    threads = threads_now()
    walking = _together if threads > 1 else _alone
    types_of = (types.intp,) * (4 if threads > 1 else 3)
    compile_all([step.kernel for step in steps], threads, lambda: walking.compile(types_of))
    table = np.concatenate([step.row for step in steps])
    return lambda: walk(steps, table)


# --- a mini-batch in parts ------------------------------------------------------------------------


class Turn(NamedTuple):
    """A step that can take turns with others, and where its arrays begin and end in memory."""

    step: Step
    pace: Pace
    places: list[tuple[int, int]]


def in_parts(calls: Iterable[Call]) -> list[Call]:
    """Return calls that do the same, where steps in a row take parts of a mini-batch in turn."""
    calls = list(calls)
    if not any(isinstance(call, Step) and call.pace and call.pace.light for call in calls):
        return [call.call if isinstance(call, Early) else call for call in calls]
    made: list[Call] = []
    early: list[Call] = []
    run: list[Turn] = []
    for call in calls:
        turn = _turn(call)
        if isinstance(call, Early):
            early.append(call.call)
        elif turn is not None and _fits(run, turn):
            run.append(turn)
        else:
            made += [*early, *_in_turn(run)]
            early, run = [], [] if turn is None else [turn]
            made += [call] if turn is None else []
    return [*made, *early, *_in_turn(run)]


def _turn(call: Call) -> Turn | None:
    """Return what is known of a step that can take turns."""
    if not isinstance(call, Step) or call.pace is None:
        return None
    starts = [(a.ctypes.data, a.nbytes) for a in call.arrays]
    return Turn(call, call.pace, [(start, start + size) for start, size in starts])


def _fits(run: Sequence[Turn], turn: Turn) -> bool:
    """Return whether a step can take turns with those of a run: memory is the same, or apart."""
    return all(
        other.pace.samples == turn.pace.samples
        and all(a == b or a[1] <= b[0] or b[1] <= a[0] for a in other.places for b in turn.places)
        for other in run
    )


def _in_turn(run: Sequence[Turn]) -> list[Step]:
    """Cut the steps of a run, so that all of them have done a part before the next part begins."""
    samples = run[0].pace.samples if run else 0
    some = _part(run, samples)
    if some >= samples:
        return [turn.step for turn in run]
    made, done = [], [0] * len(run)
    for there in [*range(some, samples, some), samples]:
        for number, (step, pace, _) in enumerate(run):
            tasks = step.numbers.tasks
            first, last = done[number], pace.allowed(there, tasks)
            if last > first:
                made.append(step.some(first, last))
                done[number] = last
            there = min(there, pace.finished(last, tasks))
    return made


def _part(run: Sequence[Turn], samples: int) -> int:
    """Return how many samples a part has: for each thread as many as hand `PART` bytes on."""
    if not any(turn.pace.light for turn in run):
        return samples
    handed = [
        turn.step.out.nbytes
        for turn, later in combinations(run, 2)
        if turn.step.out.ctypes.data in [start for start, _ in later.places]
    ]
    return threads_now() * max(1, PART * samples // max([1, *handed]))
