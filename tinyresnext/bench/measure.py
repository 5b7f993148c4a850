"""Time whole networks, and every distinct layer of a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from ..network.count import macs
from ..network.plan import Plan, Program
from ..network.plan.quantised import is_integer
from ..network.tape import Call
from ..ops import Backend
from .inputs import random_pictures

Row = dict[str, Any]


@dataclass(frozen=True)
class Measuring:
    """How everything is measured.

    Parameters
    ----------
    ops : Backend
    threads : int
    limit : float or None
        The measured peak in GFLOP/s that speeds are compared with; None where none was measured.
    repeats : int
        The number of timed runs.
    """

    ops: Backend
    threads: int
    limit: float | None
    repeats: int


# --- whole networks -------------------------------------------------------------------------------


def whole(name: str, made: Program, shape: Sequence[int], how: Measuring) -> Row:
    """Time one network on input of one shape.

    Parameters
    ----------
    name : str
        The architecture, for the row.
    made : Program
    shape : (n, h, w, c)
    how : Measuring

    Raises
    ------
    ValueError
        The image is not large enough: the last stage would be empty.
    """
    plan, x = Plan(made, shape, how.ops, threads=how.threads), random_pictures(shape)
    seconds = _seconds(lambda: plan(x), how.repeats)
    # A step may take fewer samples than the mini-batch has; its shape says how many.
    steps = zip(plan.calls, plan.shapes, strict=True)
    flops = sum(2 * macs(call, out) * shape[0] // out[0] for call, out in steps)
    return _case(name, shape) | _figures(seconds, flops, how.limit)


def _case(name: str, shape: Sequence[int]) -> Row:
    """Return the fields of a row that say which network was measured, on which input."""
    return {"model": name, "batch": shape[0], "size": shape[1]}


def _seconds(run: Callable[[], Any], repeats: int) -> list[float]:
    """Return the time of each run, after one that compiles and one that fills the caches."""
    run()
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def _figures(seconds: Sequence[float], flops: int, limit: float | None) -> Row:
    """Return the numbers of a row; GFLOP/s and the part of the peak are those of the median."""
    speed = flops / median(seconds) / 1e9
    return {
        "gflop": flops / 1e9,
        "median_ms": median(seconds) * 1e3,
        "min_ms": min(seconds) * 1e3,
        "gflops": speed,
        "peak": None if limit is None else speed / limit,
        "repeats": len(seconds),
    }


# --- layers ---------------------------------------------------------------------------------------


def layers(name: str, made: Program, shape: Sequence[int], how: Measuring) -> list[Row]:
    """Time every distinct step of a plan, with the bias, residual and ReLU that are fused into it.

    Each step is timed twice: in its place, where its weights come from memory and its input from
    the step before, and alone many times in a row, where the caches hold what fits into them. On a
    GPU the short ones are made many times in a row in both, so both find what the caches hold.
    A step that takes fewer samples together than the mini-batch has is timed on these; its figures
    are as many times larger as it is made for the mini-batch. Parameters and errors as for `whole`.
    """
    plan, x = Plan(made, shape, how.ops, threads=how.threads), random_pictures(shape)
    found: dict[tuple[str, ...], list[int]] = {}
    known = _shapes(made, plan)
    seconds = np.array([plan.profile(x, 1).seconds for _ in range(how.repeats)])
    for i, (call, out) in enumerate(zip(plan.calls, plan.shapes, strict=True)):
        found.setdefault(_kind(call, known[id(call.args[0])], out, shape[0]), []).append(i)
    rows = []
    for kind, steps in found.items():
        call, out = plan.calls[steps[0]], plan.shapes[steps[0]]
        times = shape[0] // out[0]
        alone = [times * one for one in _alone(call, known, out, how)]
        row = _case(name, shape)
        row |= {"name": call.name, "layer": " ".join(kind), "samples": out[0], "count": len(steps)}
        taken = (times * seconds[:, steps]).reshape(-1).tolist()
        row |= _figures(taken, times * 2 * macs(call, out), how.limit)
        row |= {"alone_median_ms": median(alone) * 1e3, "alone_min_ms": min(alone) * 1e3}
        rows.append(row)
    return rows


def _shapes(made: Program, plan: Plan) -> dict[int, tuple[int, ...]]:
    """Return the shape of the input and of each result, by identity; a step takes its samples."""
    known = {id(call.out): shape for call, shape in zip(plan.calls, plan.shapes, strict=True)}
    return known | {id(made.x): plan.x_shape}


def _kind(call: Call, given: Sequence[int], out: Sequence[int], batch: int) -> tuple[str, ...]:
    """Describe the work of a step in words; steps with the same words do the same work."""
    a = call.attrs
    kernel = "x".join(map(str, call.args[1].shape[2:])) if call.op.startswith("conv2d") else ""
    words = [call.op, "x".join(map(str, given[1:])), "to", "x".join(map(str, out[1:])), kernel]
    words += [f"{key} {a[key]}" for key in ("stride", "groups") if a.get(key, 1) != 1]
    words += ["+residual" * ("residual" in a), "+relu" * bool(a.get("relu"))]
    words += [f"{out[0]} at a time"] if out[0] < batch else []
    return tuple(word for word in words if word)


def _alone(
    call: Call, known: Mapping[int, Sequence[int]], out: Sequence[int], how: Measuring
) -> list[float]:
    """Return the times of a step by itself, on as many samples as it takes in the plan."""
    ops = how.ops

    def filled(a: Any) -> Any:
        if id(a) not in known:
            return a
        shape = (out[0], *known[id(a)][1:])
        if is_integer(a):
            return np.random.default_rng(1).integers(0, 100, shape, dtype=a.dtype)
        return ops.upload(random_pictures(shape), out=ops.empty(shape, ops.precision))

    attrs = {name: filled(a) for name, a in call.attrs.items()}
    dtype = np.float32 if call.op == "linear" else ops.precision
    dtype = call.out.dtype if is_integer(call.out) else dtype
    with ops.on_threads(ops.thread_count(how.threads)):
        args = map(filled, call.args)
        step = ops.bind(call.op, *args, **attrs, out=ops.empty(out, dtype))
        calls, times = ops.repeated(step)

        def run() -> None:
            calls()
            ops.wait()

        return [one / times for one in _seconds(run, how.repeats)]
