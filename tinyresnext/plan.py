"""From a recorded forward pass to a straight line of fused kernel calls.

`trace` records the walk through the network without data. Three short functions rewrite the list of calls: batch norms
vanish into the weights before them, additions and ReLUs into the convolutions that feed them. `program` does this once
for a model; a `Plan` then places the values of one input shape in memory that is used again and again, and runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .ops import shapes
from .resnext import forward
from .spec import Spec
from .tape import Call, Tape

Calls = list[Call]


class ShapesOnly:
    """The shape rules as a backend: each op returns a stand-in, an array that has a shape and owns no memory."""

    def __getattr__(self, op: str) -> Callable[..., Any]:
        rule = getattr(shapes, op)
        return lambda *args, **attrs: stand_in(rule(*args, **attrs))

    @staticmethod
    def upload(array: Any) -> Any:
        """Constants stay as they are."""
        return array


def stand_in(shape: Sequence[int]) -> np.ndarray:
    """An array of that shape, all of whose values are one and the same zero; each call makes another object."""
    return np.broadcast_to(np.float32(0), shape)


def trace(params: Mapping[str, Any], spec: Spec, x_shape: Sequence[int]) -> tuple[Any, Calls]:
    """Walk through the network with stand-ins for the values.

    Returns
    -------
    x : the stand-in for the input
    calls : list of Call
        Every op in order, with torchvision's name for its result.
    """
    names: dict[int, str] = {}

    def at(name: str, value: Any) -> Any:
        names.setdefault(id(value), name)
        return value

    tape, x = Tape(ShapesOnly()), stand_in(x_shape)
    forward(params, spec, x, tape, at=at)
    return x, [replace(call, name=names[id(call.out)]) for call in tape.calls]


def fold_batch_norm(calls: Calls) -> Calls:
    """``a (w * x) + b`` is ``(a w) * x + b``: the norm vanishes into the weights, in float64 so that nothing is lost."""

    def merge(conv: Call, norm: Call) -> Call:
        x, weight = conv.args
        scale, shift, mean, var = (np.asarray(a, np.float64) for a in norm.args[1:])
        a = scale / np.sqrt(var + norm.attrs["eps"])
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found in the logits
            bias = (shift - mean * a).astype(weight.dtype)
            folded = np.empty(weight.shape, weight.dtype)  # filled in pieces: there is never a whole weight in float64
            np.multiply(weight, a[:, None, None, None], out=folded, dtype=np.float64, casting="same_kind")
            return replace(conv, args=(x, folded, bias))

    return absorb(calls, "batch_norm", "conv2d", lambda conv: len(conv.args) == 2, merge)


def fuse_add(calls: Calls) -> Calls:
    """The sum with the shortcut is taken while the convolution's result is still at hand."""

    def merge(conv: Call, add: Call) -> Call:
        return replace(conv, attrs=conv.attrs | {"residual": add.args[1]})

    return absorb(calls, "add", "conv2d", lambda conv: "residual" not in conv.attrs and "relu" not in conv.attrs, merge)


def fuse_relu(calls: Calls) -> Calls:
    """And so does the rectification."""

    def merge(conv: Call, relu: Call) -> Call:
        return replace(conv, attrs=conv.attrs | {"relu": True})

    return absorb(calls, "relu", "conv2d", lambda conv: True, merge)


def absorb(calls: Calls, op: str, into: str, fits: Callable[[Call], bool], merge: Callable[[Call, Call], Call]) -> Calls:
    """Merge each ``op`` into the call of ``into`` that made its first argument, when nothing else reads that value.

    ``a = conv2d(x); b = shortcut; c = add(a, b)`` becomes ``b = shortcut; c = conv2d(x, residual=b)``.
    """
    readers: dict[int, int] = {}
    for call in calls:
        for value in _inputs(call):
            readers[id(value)] = readers.get(id(value), 0) + 1
    makers = {id(call.out): call for call in calls if call.op == into}
    merged, kept = set(), []
    for call in calls:
        maker = makers.get(id(call.args[0])) if call.op == op else None
        if maker is not None and readers[id(maker.out)] == 1 and fits(maker):
            merged.add(maker)
            # The pair takes the later place: by then the other argument of an addition has been computed too.
            call = replace(merge(maker, call), out=call.out, fused=(*maker.fused, op))
            makers[id(call.out)] = call
        kept.append(call)
    return [call for call in kept if call not in merged]


def _inputs(call: Call) -> Iterable[Any]:
    """Every array a call reads."""
    return [a for a in (*call.args, call.attrs.get("residual")) if a is not None]


def replay(calls: Calls, x: Any, value: Any, ops: Any) -> list[Any]:
    """Make the recorded calls again, with ``value`` in the place of the recorded input ``x``.

    Returns
    -------
    list
        The result of each call; the last one is the network's.
    """
    known, results = {id(x): value}, []
    for call in calls:
        args = [known.get(id(a), a) for a in call.args]
        attrs = {key: known.get(id(a), a) for key, a in call.attrs.items()}
        results.append(getattr(ops, call.op)(*args, **attrs))
        known[id(call.out)] = results[-1]
    return results


@dataclass(frozen=True, eq=False)
class Program:
    """A network ready to be planned for any input shape: fused calls whose weights lie on the device, packed."""

    x: Any
    calls: tuple[Call, ...]
    channels: int


def program(params: Mapping[str, np.ndarray], spec: Spec, ops: Any) -> Program:
    """Trace, fold, fuse, and give every weight to the backend, once for all plans of a model."""
    x, calls = trace(params, spec, (1, 256, 256, spec.channels))  # which shape does not matter: calls do not depend on it
    for rewrite in (fold_batch_norm, fuse_add, fuse_relu):
        calls = rewrite(calls)
    made = {id(call.out) for call in calls} | {id(x)}

    def place(call: Call) -> Call:
        first, *rest = (a if a is None or id(a) in made else ops.upload(a) for a in call.args)
        if call.op == "conv2d":
            rest[0] = ops.pack(rest[0], call.attrs.get("groups", 1))
        return replace(call, args=(first, *rest))

    for t, call in enumerate(calls):  # in place, so that of a folded weight and its packed copy only one is kept
        calls[t] = place(call)
    return Program(x, tuple(calls), spec.channels)


def assign_buffers(
    steps: Sequence[tuple[Sequence[Any], Iterable[Any]]], sizes: Sequence[Sequence[int]], over: Mapping[int, Any] | None = None
) -> tuple[dict[int, int], list[int]]:
    """Give each value a buffer, and a buffer to another value once nobody will read the first again.

    Parameters
    ----------
    steps : sequence of (made, read)
        The values that each step makes and those that it reads, told apart by identity.
    sizes : sequence of sequence of int
        How many numbers each of the values has that a step makes.
    over : mapping, optional
        Of the identity of a value that is made to one that the same step reads and nobody after it: it goes in its place.

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
                last[id(over[id(value)])] = -1  # the buffer is not free when the value that was in it is dead
            else:
                # The smallest free buffer that is large enough; else the largest, which then grows; else a new one.
                best = min(free, key=lambda b: (buffers[b] < need, abs(buffers[b] - need)), default=len(buffers))
                if best == len(buffers):
                    buffers.append(need)
                else:
                    free.remove(best)
                    buffers[best] = max(buffers[best], need)
            places[id(value)] = best
        free += {places[id(value)] for value in (*made, *read) if last[id(value)] == t and id(value) in places}
    return places, buffers


class Plan:
    """A straight line of kernel calls for one input shape.

    ``print(plan)`` shows it; ``plan(x)`` runs it; ``plan.profile(x)`` times each step. A multiply-add counts as two
    floating-point operations there. The buffers belong to the plan, so calls from several threads take turns. The pictures of a
    batch go through the network as many at a time as the backend likes: a few stay in its caches from step to step.

    Parameters
    ----------
    program : Program
    x_shape : (n, h, w, channels)
    ops : backend
        The one the program was made for.
    dtype : numpy dtype
        Of the values on the way: that of the weights.
    threads : int, optional
        How many to run on; by default, as many cores as this process may use.

    Raises
    ------
    ValueError
        When the network leaves nothing of a picture of that size.
    """

    def __init__(
        self, program: Program, x_shape: Sequence[int], ops: Any, dtype: Any = np.float32, threads: int | None = None
    ) -> None:
        self.x_shape, self.calls, self._ops, self._lock = tuple(x_shape), program.calls, ops, threading.Lock()
        self.threads = ops.thread_count(threads)
        with ops.on_threads(self.threads):  # tasks are cut for that many
            self._place(program, ops, dtype)

    def _place(self, program: Program, ops: Any, dtype: Any) -> None:
        """Give every value its place, and prepare every call."""
        self.at_once = ops.at_once(self.x_shape[0])
        some = (self.at_once, *self.x_shape[1:])
        outs = replay(list(program.calls), program.x, stand_in(some), ShapesOnly())
        self.shapes = [out.shape for out in outs]
        steps = [((call.out,), _inputs(call)) for call in program.calls]
        places, self.buffers = assign_buffers(steps, [(out.size,) for out in outs])
        self.places = [places[id(call.out)] for call in program.calls]
        arena = [ops.empty((size,), dtype) for size in self.buffers]
        self._x = ops.empty(some, dtype)
        values = {id(program.x): self._x}
        self._steps = []
        for call, shape, place in zip(program.calls, self.shapes, self.places, strict=True):
            values[id(call.out)] = out = arena[place][: int(np.prod(shape))].reshape(shape)
            args = [values.get(id(a), a) for a in call.args]
            attrs = {key: values.get(id(a), a) for key, a in call.attrs.items()}
            self._steps.append(ops.bind(call.op, *args, **attrs, out=out))
        self._run, self._y = ops.chain(self._steps), out

    @property
    def bytes(self) -> int:
        """Memory for the values on the way, without the weights."""
        return sum(self.buffers) * self._x.dtype.itemsize

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Logits [n, classes] of the normalised pictures ``x``, which have the plan's shape."""
        y = np.empty((len(x), *self._y.shape[1:]), self._x.dtype)
        with self._ops.on_threads(self.threads), self._lock:
            for first in range(0, len(x), self.at_once):
                self._load(x, first)
                self._run()
                y[first : first + self.at_once] = self._ops.download(self._y)
        return y

    def profile(self, x: np.ndarray, repeats: int = 10) -> Profile:
        """Run the first pictures ``repeats`` times; keep the shortest time of each step, as other work only ever adds."""
        seconds = np.empty((repeats, len(self._steps)))
        with self._ops.on_threads(self.threads), self._lock:
            self._load(x, 0)
            for step in self._steps:  # compiles, and warms the caches
                step()
            for run in range(repeats):
                for i, step in enumerate(self._steps):
                    start = time.perf_counter()
                    step()
                    seconds[run, i] = time.perf_counter() - start
        return Profile(self, tuple(seconds.min(axis=0)))

    def _load(self, x: np.ndarray, first: int) -> None:
        """Copy some pictures to where the first step reads them."""
        if x.shape != self.x_shape:
            raise ValueError(f"the input has shape {x.shape}, and this plan is for {self.x_shape}; make another plan")
        self._x[...] = self._ops.upload(x[first : first + self.at_once])

    def __repr__(self) -> str:
        return f"<Plan of {len(self.calls)} steps for {self.x_shape}: print it to see them>"

    def __str__(self) -> str:
        rows = [_row(call, shape, place) for call, shape, place in zip(self.calls, self.shapes, self.places, strict=True)]
        total = sum(macs(call, shape) for call, shape in zip(self.calls, self.shapes, strict=True))
        memory = f"{len(self.buffers)} buffers of {self.bytes / 2**20:.1f} MiB in all"
        last = f"{len(rows)} steps, {2 * total / 1e9:.2f} GFLOP, {memory}"
        taken = "" if self.at_once == self.x_shape[0] else f", {self.at_once} at a time: the figures are for these"
        return "\n".join([f"input {' x '.join(map(str, self.x_shape))}{taken}", _HEADER, *rows, last])


@dataclass(frozen=True)
class Profile:
    """How long each step of a plan took, in seconds; ``print`` shows it."""

    plan: Plan
    seconds: tuple[float, ...]

    def __str__(self) -> str:
        total = sum(self.seconds)
        lines = [f"{_HEADER}        ms  share  GFLOP/s"]
        for call, shape, place, s in zip(self.plan.calls, self.plan.shapes, self.plan.places, self.seconds, strict=True):
            speed = 2 * macs(call, shape) / s / 1e9
            lines.append(f"{_row(call, shape, place)}  {s * 1e3:8.3f}  {s / total:5.1%}  {speed:7.1f}")
        return "\n".join([*lines, f"{total * 1e3:.2f} ms in all"])


_HEADER = (
    f"{'step':24} {'op':10} {'result':>19}  {'kernel':>6} {'stride':>6} {'groups':>6}  {'fused':24} {'MFLOP':>8} {'buffer':>6}"
)


def _row(call: Call, shape: Sequence[int], place: int) -> str:
    """One line of the table."""
    kernel = "x".join(map(str, call.args[1].shape[2:])) if call.op == "conv2d" else call.attrs.get("size", "")
    stride, groups = call.attrs.get("stride", ""), call.attrs.get("groups", "")
    return (
        f"{call.name:24} {call.op:10} {' x '.join(map(str, shape)):>19}  {kernel!s:>6} {stride!s:>6} {groups!s:>6}  "
        f"{' '.join(call.fused):24} {2 * macs(call, shape) / 1e6:8.1f} {place:6}"
    )


def macs(call: Call, shape: Sequence[int]) -> int:
    """Multiplications with a weight that a call makes for a result of that shape, as everyone counts them."""
    if call.op == "conv2d":
        return int(np.prod(shape)) * int(np.prod(call.args[1].shape[1:]))
    if call.op == "linear":
        return int(np.prod(shape)) * call.args[1].shape[1]
    return 0
