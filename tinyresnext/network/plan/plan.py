"""A plan: a program for one input shape, with memory for its values, prepared to run."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...errors import OutOfMemoryError, UsageError
from ...ops.bfloat16 import limits
from ...ops.contract import Array, Backend
from ...system.checks import is_whole
from ...system.threads import OwnLock
from ..buffers import allocate, assign_buffers
from ..tape import stand_in
from ..trace import ShapesOnly, inputs, replay
from .profile import Profile, table
from .programs import Program
from .quantised import between_floats, is_integer
from .sections import sections


def planned(
    whole: Program, stages: Iterable[str], x_shape: Sequence[int], ops: Backend, threads: int
) -> list[Plan]:
    """Cut a program behind stages, which stand in order, and return a plan for each part.

    The input of a part is the output of the part before it. What comes after the last stage is in
    none of them.
    """
    ends: dict[str, int] = {}
    for end, call in enumerate(whole.calls, 1):
        first = call.name.partition(".")[0]
        name = first if first.startswith("layer") else "pooled" if "layer1" in ends else "stem"
        if name != "pooled" or call.op == "mean_pool":
            ends[name] = end
    plans: list[Plan] = []
    x, start, scale = whole.x, 0, None
    for end in (ends[stage] for stage in stages):
        first, calls = between_floats(x, whole.calls[start:end], scale)
        part = Program(first, tuple(calls), whole.quantised)
        plans.append(Plan(part, x_shape, ops, threads=threads))
        x, start, scale = whole.calls[end - 1].out, end, whole.calls[end - 1].attrs.get("scale")
        x_shape = (x_shape[0], *plans[-1].shapes[-1][1:])
    return plans


class Value(NamedTuple):
    """Memory for the values of some samples that a call makes, or the input."""

    memory: Array
    shape: tuple[int, ...]  # of one sample
    room: int  # samples

    def part(self, ops: Backend, first: int, some: int) -> Array:
        """Return the place of some samples; those after the last one lie over the first ones."""
        start = first % self.room * prod(self.shape)
        return ops.view(self.memory, (some, *self.shape), start)


class Plan:
    """A straight line of kernel calls for one input shape.

    ``print(plan)`` shows it; ``plan(x)`` runs it; ``plan.profile(x)`` times each step. A
    multiply-add counts as two floating-point operations there. The buffers belong to the plan, so
    calls from several threads take turns. The backend says how many samples of a mini-batch go
    through the network together, so that their values stay in its caches from step to step; where
    its memory does not hold the values of so many, fewer do.

    Parameters
    ----------
    program : Program
    x_shape : (n, h, w, channels)
    ops : backend
        The one that the program was made for.
    dtype : NumPy type, optional
        Of the intermediate values: by default the backend's precision. Logits are float32 at least.
    threads : int, optional
        How many to run on; by default, as many cores as this process may use.

    Attributes
    ----------
    bytes : int
        The memory of the intermediate values, without the weights.
    in_parts : bool
        Whether there was not enough memory for the values of all samples.

    Raises
    ------
    UsageError
        ``x_shape`` is no such shape.
    ValueError
        The image is not large enough: the last stage would be empty.
    OutOfMemoryError
        The device's memory does not hold the values of one sample.
    """

    def __init__(
        self,
        program: Program,
        x_shape: Sequence[int],
        ops: Backend,
        dtype: Any = None,
        threads: int | None = None,
    ) -> None:
        self.x_shape, self.calls = self.input_shape(x_shape), program.calls
        self._ops, self._lock = ops, OwnLock()
        self._quantised = program.quantised
        self.threads = ops.thread_count(threads)
        dtype = limits(ops.precision).dtype if dtype is None else np.dtype(dtype)
        with ops.on_threads(self.threads):  # the number of tasks depends on the threads
            n = max(1, self.x_shape[0])
            fitting = (some for some in range(n, 0, -1) if n % some == 0)
            placed = (some for some in fitting if self._placed(some, program, ops, dtype))
            self.in_parts = next(placed) < n

    @staticmethod
    def input_shape(x_shape: Any) -> tuple[int, int, int, int]:
        """Return the shape of normalised images.

        Raises
        ------
        UsageError
            It is not (n, h, w, channels).
        """
        try:
            n, h, w, channels = map(operator.index, x_shape)
        except (TypeError, ValueError):
            n = -1
        if n < 0 or min(h, w, channels) < 0:
            raise UsageError(
                f"the shape of the input is {x_shape!r:.80}; give four whole numbers "
                "(n, h, w, channels), such as (1, 224, 224, 3)"
            )
        return n, h, w, channels

    def _placed(self, most: int, program: Program, ops: Backend, dtype: Any) -> bool:
        """Give every value memory, and prepare every call; return whether there was enough."""
        try:
            self._bind(self._place(most, program, ops, dtype), program.x, ops)
        except OutOfMemoryError:
            if most == 1:
                raise
            return False
        return True

    def _place(self, most: int, program: Program, ops: Backend, dtype: Any) -> dict[int, Value]:
        """Give every value memory, where at most so many samples go together anywhere."""
        calls, one = program.calls, stand_in((1, *self.x_shape[1:]))
        outs = replay(calls, program.x, one, ShapesOnly())
        sizes = {id(call.out): out.size for call, out in zip(calls, outs, strict=True)}
        sizes[id(program.x)] = one.size
        self.sections = sections(calls, program.x, sizes, most, ops.at_once)
        self.at_once = self.sections[-1].together
        room = [part.together for part in self.sections for _ in range(part.first, part.last)]
        self.shapes = [(some, *out.shape[1:]) for some, out in zip(room, outs, strict=True)]
        # What the last call of a section makes waits for the samples that the next one takes.
        waits = {part.first - 1: part.together for part in self.sections[1:]}
        room = [waits.get(t, some) for t, some in enumerate(room)]
        kinds = [call.out.dtype if is_integer(call.out) else dtype for call in calls]
        places: dict[int, int] = {}
        arena: list[Array] = []
        self.buffers: list[int] = []
        self.bytes = 0
        for kind in dict.fromkeys(kinds):  # values of one type share memory
            own = [t not in waits and kinds[t] == kind for t in range(len(calls))]
            steps = [((c.out,) * is_own, inputs(c)) for c, is_own in zip(calls, own, strict=True)]
            needs = [[prod(shape)] * is_own for shape, is_own in zip(self.shapes, own, strict=True)]
            some_places, buffers = assign_buffers(steps, needs)
            for t in waits:
                if kinds[t] == kind:
                    some_places[id(calls[t].out)] = len(buffers)
                    buffers.append(room[t] * outs[t].size)
            places |= {value: len(arena) + place for value, place in some_places.items()}
            arena += allocate(ops, buffers, kind)
            self.buffers += buffers
            self.bytes += sum(buffers) * kind.itemsize
        self.places = [places[id(call.out)] for call in calls]
        x = ops.empty((self.at_once * one.size,), dtype)
        memory = {id(program.x): Value(x, one.shape[1:], self.at_once)}
        for call, out, place, some in zip(calls, outs, self.places, room, strict=True):
            there = arena[place]
            if call.op == "linear" and dtype.itemsize < 4:  # logits are not rounded again
                there = ops.empty((some * out.size,))
            memory[id(call.out)] = Value(there, out.shape[1:], some)
        return memory

    def _bind(self, memory: dict[int, Value], x: Any, ops: Backend) -> None:
        """Prepare every call for the samples that it takes each time."""
        prepared: dict[tuple[int, ...], Callable[[], Any]] = {}
        in_order = []
        few = self.sections[0].together
        for done in range(few, self.at_once + 1, few):  # so many samples have come so far
            for part in self.sections:
                if done % part.together:
                    continue
                for t in range(part.first, part.last):
                    call, first = self.calls[t], done - part.together
                    values = [memory[id(a)] for a in (*inputs(call), call.out) if id(a) in memory]
                    key = (t, *(first % value.room for value in values))
                    if key not in prepared:

                        def at(a: Any, first: int = first, some: int = part.together) -> Any:
                            return memory[id(a)].part(ops, first, some) if id(a) in memory else a

                        attrs = {name: at(a) for name, a in call.attrs.items()}
                        args, out = map(at, call.args), at(call.out)
                        prepared[key] = ops.bind(call.op, *args, **attrs, out=out)
                    in_order.append(prepared[key])
        first_of = {t: step for (t, *_), step in reversed(prepared.items())}
        self._steps = [first_of[t] for t in range(len(self.calls))]
        self._run = ops.chain(in_order)
        self._x = memory[id(x)].part(ops, 0, self.at_once)
        self._y = memory[id(self.calls[-1].out)].part(ops, 0, self.at_once)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the logits [n, classes] of normalised images of the plan's shape.

        Raises
        ------
        UsageError
            ``x`` is something else; or it has values that are NaN or infinite, and the network is
            quantised: no integer stands for them, so logits would not show it.
        """
        self._check(x)
        y = np.empty((len(x), *self._y.shape[1:]), np.promote_types(self._x.dtype, np.float32))
        with self._ops.on_threads(self.threads), self._lock.here():
            for first in range(0, len(x), self.at_once):
                self._load(x, first)
                self._run()
                y[first : first + self.at_once] = self._ops.download(self._y)
        return y

    def profile(self, x: np.ndarray, repeats: int = 10) -> Profile:
        """Time each step; the shortest of some repeats counts, since other processes only add.

        On a GPU a short step is made many times in a row each time (`repeated` of the contract).

        Raises
        ------
        UsageError
            ``x`` is something else than a call takes or has no images, or ``repeats`` is no whole
            number from 1.
        """
        self._check(x)
        if not len(x):
            raise UsageError("the plan is for no images, so no step takes time; make one for some")
        if not is_whole(repeats, 1):
            raise UsageError(f"repeats is {repeats!r:.80}; give a whole number of at least 1")
        seconds = np.empty((repeats, len(self._steps)))
        with self._ops.on_threads(self.threads), self._lock.here():
            self._load(x, 0)
            self._run()  # so that no step reads memory that was never filled
            for step in self._steps:  # compiles, and warms the caches
                step()
            self._ops.wait()
            timed = [self._ops.repeated(step) for step in self._steps]
            for run in range(repeats):
                for i, (call, times) in enumerate(timed):
                    start = time.perf_counter()
                    call()
                    self._ops.wait()
                    seconds[run, i] = (time.perf_counter() - start) / times
        return Profile(self, tuple(seconds.min(axis=0)))

    def _check(self, x: np.ndarray) -> None:
        """Raise `UsageError` for what this plan cannot take."""
        if not isinstance(x, np.ndarray) or not np.can_cast(x.dtype, np.float32, "same_kind"):
            found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            raise UsageError(
                f"the input is {found}, expected a float32 array {self.x_shape} of normalised "
                "images; tinyresnext.prepare makes them"
            )
        if x.shape != self.x_shape:
            asked = f"the input has shape {x.shape}, and this plan is for {self.x_shape}"
            raise UsageError(f"{asked}; make another plan")
        if self._quantised:
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.asarray(x, np.float32)).all()
            if not finite:
                raise UsageError(
                    "the input has values that are NaN or infinite in float32, which a quantised "
                    "model cannot represent; give finite values"
                )

    def _load(self, x: np.ndarray, first: int) -> None:
        """Copy some images to where the first step reads them."""
        some = x[first : first + self.at_once]
        whole = some.dtype.kind != "f"  # in memory, bfloat16 is uint16: it would be taken as that
        self._ops.upload(some.astype(np.float32) if whole else some, out=self._x)

    def __repr__(self) -> str:
        return f"<Plan of {len(self.calls)} steps for {self.x_shape}: print it to see them>"

    def __str__(self) -> str:
        return table(self)
