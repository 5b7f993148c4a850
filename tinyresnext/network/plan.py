"""A plan: a network for one input shape as a straight line of fused kernel calls.

`program` prepares a network once: it is traced, its batch norms are folded, additions and ReLUs
fused, and its weights packed for the backend. A `Plan` then gives the values of one input shape
memory that is used again and again, and runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import OutOfMemoryError, UsageError
from ..ops.contract import Backend
from ..system.words import one_of
from .buffers import allocate, assign_buffers
from .count import macs
from .rewrite import folded, for_inference
from .spec import Spec
from .tape import Call, stand_in
from .trace import ShapesOnly, inputs, replay, trace


@dataclass(frozen=True, eq=False)
class Program:
    """A network that is ready to be planned for any input shape.

    Attributes
    ----------
    x : stand-in
        The input.
    calls : tuple of Call
        Fused; their weights are on the device, packed.
    """

    x: Any
    calls: tuple[Call, ...]


def program(params: Mapping[str, np.ndarray], spec: Spec, ops: Backend) -> Program:
    """Trace, fold and fuse a network, and place its weights on the device.

    This is done once for all plans of a model. Where ``params`` let go of what they return, there
    is no more than one copy of all weights at any time, and a few of one layer's.
    """
    # The calls do not depend on the shape.
    traced = trace(params, spec, (1, 256, 256, spec.channels))
    x, calls = traced.x, for_inference(traced.calls)
    del traced  # its calls have the weights too
    made = {id(call.out) for call in calls} | {id(x)}

    def place(call: Call) -> Call:
        first, *rest = (a if a is None or id(a) in made else ops.upload(a) for a in call.args)
        if call.op == "conv2d":
            rest[0] = ops.pack(rest[0], call.attrs.get("groups", 1))
        elif call.op == "linear" and ops.precision != "float32":
            weight = call.args[1]
            rest[0] = ops.upload(weight, out=ops.empty(weight.shape, ops.precision))
        return replace(call, args=(first, *rest))

    # In place, so that of a weight, the folded one and its packed copy only the last is kept.
    for t, call in enumerate(calls):
        calls[t] = place(folded(call))
    return Program(x, tuple(calls))


def chosen_stages(spec: Spec, asked: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the names of all stages, or of those asked for, in the order of the network.

    Raises
    ------
    UsageError
        There is no such stage.
    """
    known = ("stem", *(f"layer{number + 1}" for number in range(len(spec.blocks))), "pooled")
    wanted = known if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no stage {name!r}: {one_of(name, known)}")
    return tuple(name for name in known if name in wanted)


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
    x, start = whole.x, 0
    for end in (ends[stage] for stage in stages):
        part = Program(x, whole.calls[start:end])
        plans.append(Plan(part, x_shape, ops, threads=threads))
        x, start = whole.calls[end - 1].out, end
        x_shape = (x_shape[0], *plans[-1].shapes[-1][1:])
    return plans


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

    Raises
    ------
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
        self.x_shape, self.calls = tuple(x_shape), program.calls
        self._ops, self._lock = ops, threading.Lock()
        self.threads = ops.thread_count(threads)
        dtype = np.dtype(ops.precision if dtype is None else dtype)
        with ops.on_threads(self.threads):  # the number of tasks depends on the threads
            most, n = ops.at_once(self.x_shape[0]), self.x_shape[0]
            fitting = (some for some in range(most, 0, -1) if n % some == 0 or some == 1)
            while not self._placed(next(fitting), program, ops, dtype):
                pass

    def _placed(self, at_once: int, program: Program, ops: Backend, dtype: Any) -> bool:
        """Give every value memory, and prepare every call; return whether there was enough."""
        try:
            self._place(at_once, program, ops, dtype)
        except OutOfMemoryError:
            if at_once == 1:
                raise
            return False
        return True

    def _place(self, at_once: int, program: Program, ops: Backend, dtype: Any) -> None:
        """Give every value memory, and prepare every call, for so many samples at a time."""
        self.at_once, some = at_once, (at_once, *self.x_shape[1:])
        outs = replay(program.calls, program.x, stand_in(some), ShapesOnly())
        self.shapes = [out.shape for out in outs]
        steps = [((call.out,), inputs(call)) for call in program.calls]
        places, self.buffers = assign_buffers(steps, [(out.size,) for out in outs])
        self.places = [places[id(call.out)] for call in program.calls]
        arena = allocate(ops, self.buffers, dtype)
        self._x = ops.empty(some, dtype)
        values = {id(program.x): self._x}
        self._steps = []
        for call, shape, place in zip(program.calls, self.shapes, self.places, strict=True):
            out = ops.view(arena[place], shape)
            if call.op == "linear" and dtype.itemsize < 4:  # logits are not rounded again
                out = ops.empty(shape)
            values[id(call.out)] = out
            args = [values.get(id(a), a) for a in call.args]
            attrs = {key: values.get(id(a), a) for key, a in call.attrs.items()}
            self._steps.append(ops.bind(call.op, *args, **attrs, out=out))
        self._run, self._y = ops.chain(self._steps), out

    @property
    def bytes(self) -> int:
        """Return the memory of the intermediate values, without the weights, in bytes."""
        return sum(self.buffers) * self._x.dtype.itemsize

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the logits [n, classes] of normalised images of the plan's shape."""
        y = np.empty((len(x), *self._y.shape[1:]), np.promote_types(self._x.dtype, np.float32))
        with self._ops.on_threads(self.threads), self._lock:
            for first in range(0, len(x), self.at_once):
                self._load(x, first)
                self._run()
                y[first : first + self.at_once] = self._ops.download(self._y)
        return y

    def profile(self, x: np.ndarray, repeats: int = 10) -> Profile:
        """Time each step; the shortest of some repeats counts, since other processes only add."""
        seconds = np.empty((repeats, len(self._steps)))
        with self._ops.on_threads(self.threads), self._lock:
            self._load(x, 0)
            for step in self._steps:  # compiles, and warms the caches
                step()
            self._ops.wait()
            for run in range(repeats):
                for i, step in enumerate(self._steps):
                    start = time.perf_counter()
                    step()
                    self._ops.wait()
                    seconds[run, i] = time.perf_counter() - start
        return Profile(self, tuple(seconds.min(axis=0)))

    def _load(self, x: np.ndarray, first: int) -> None:
        """Copy some images to where the first step reads them."""
        if x.shape != self.x_shape:
            raise ValueError(
                f"the input has shape {x.shape}, and this plan is for {self.x_shape}; make "
                "another plan"
            )
        self._ops.upload(x[first : first + self.at_once], out=self._x)

    def __repr__(self) -> str:
        return f"<Plan of {len(self.calls)} steps for {self.x_shape}: print it to see them>"

    def __str__(self) -> str:
        rows = [
            _row(call, shape, place)
            for call, shape, place in zip(self.calls, self.shapes, self.places, strict=True)
        ]
        total = sum(macs(call, shape) for call, shape in zip(self.calls, self.shapes, strict=True))
        memory = f"{len(self.buffers)} buffers of {self.bytes / 2**20:.1f} MiB in all"
        last = f"{len(rows)} steps, {2 * total / 1e9:.2f} GFLOP, {memory}"
        head = f"input {' x '.join(map(str, self.x_shape))}"
        if self.at_once != self.x_shape[0]:
            head += f", {self.at_once} at a time: the figures are for these"
        return "\n".join([head, _HEADER, *rows, last])


@dataclass(frozen=True)
class Profile:
    """The time that each step of a plan took, in seconds; ``print`` shows it."""

    plan: Plan
    seconds: tuple[float, ...]

    def __str__(self) -> str:
        total = sum(self.seconds)
        lines = [f"{_HEADER}        ms  share  GFLOP/s"]
        for call, shape, place, s in zip(
            self.plan.calls, self.plan.shapes, self.plan.places, self.seconds, strict=True
        ):
            speed = 2 * macs(call, shape) / s / 1e9
            lines.append(
                f"{_row(call, shape, place)}  {s * 1e3:8.3f}  {s / total:5.1%}  {speed:7.1f}"
            )
        return "\n".join([*lines, f"{total * 1e3:.2f} ms in all"])


_HEADER = (
    f"{'step':24} {'op':10} {'result':>19}  {'kernel':>6} {'stride':>6} {'groups':>6}  "
    f"{'fused':24} {'MFLOP':>8} {'buffer':>6}"
)


def _row(call: Call, shape: Sequence[int], place: int) -> str:
    """Return one line of the table."""
    kernel = call.attrs.get("size", "")
    if call.op == "conv2d":
        kernel = "x".join(map(str, call.args[1].shape[2:]))
    result = " x ".join(map(str, shape))
    stride, groups = call.attrs.get("stride", ""), call.attrs.get("groups", "")
    return (
        f"{call.name:24} {call.op:10} {result:>19}  {kernel!s:>6} {stride!s:>6} {groups!s:>6}  "
        f"{' '.join(call.fused):24} {2 * macs(call, shape) / 1e6:8.1f} {place:6}"
    )
