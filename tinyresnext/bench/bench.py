"""How fast the network runs here, as a part of what this machine can do.

Three tables: the machine's limits (`tinyresnext.bench.peak`), whole networks, and every distinct
layer of a network. Weights are random, because time does not depend on what a network knows; but
they are of the usual size, because it does depend on numbers so small that the processor takes a
detour (denormals).

Two numbers are given for each: the *median* is what to expect, the *shortest* what is possible when
nobody else runs. Where they lie far apart, the machine was busy, and the last line says how busy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..errors import UsageError
from ..network.count import macs
from ..network.plan import Plan, Program, program
from ..network.resnext import parameters
from ..network.spec import Spec, variant
from ..network.tape import Call
from ..ops import Backend, backend
from ..system.version import __version__
from .processor import Others, processor

SCHEMA = 1
Row = dict[str, Any]


@dataclass(frozen=True)
class Measuring:
    """How everything is measured: on what, on how many threads, beside which limit (GFLOP/s), and how often."""

    ops: Backend
    threads: int
    limit: float
    repeats: int


# --- what is run ----------------------------------------------------------------------------------


def random_parameters(spec: Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights as training begins with them (He et al. 2015), with norms that have seen something; always the same ones.

    Parameters
    ----------
    spec : Spec
    seed : int

    Returns
    -------
    dict
        Every parameter that `tinyresnext.network.resnext.parameters` names, float32.
    """
    random, made = np.random.default_rng(seed), {}
    for name, shape in parameters(spec).items():
        value = random.standard_normal(shape, np.float32)
        if len(shape) > 1:  # each convolution, and the classifier
            value *= np.float32(((2.0 if len(shape) == 4 else 1.0) / np.prod(shape[1:])) ** 0.5)
        elif name.endswith("running_var"):
            value = np.float32(1) + np.float32(0.1) * np.abs(value)
        elif name.endswith(".weight"):
            value = np.float32(0.5) + np.float32(0.05) * value
        else:
            value *= np.float32(0.1)
        made[name] = value
    return made


def random_pictures(shape: Sequence[int], seed: int = 1) -> np.ndarray:
    """Normalised noise ``[n, h, w, c]``; the first pictures of a batch are the same for any size of batch."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# --- whole networks -------------------------------------------------------------------------------


def whole(name: str, made: Program, shape: Sequence[int], how: Measuring) -> Row:
    """One network, one shape of input."""
    plan, x = Plan(made, shape, how.ops, threads=how.threads), random_pictures(shape)
    seconds = _seconds(lambda: plan(x), how.repeats)
    # A plan may take a batch through the network in several parts.
    flops = (
        2
        * sum(macs(call, out) for call, out in zip(plan.calls, plan.shapes, strict=True))
        * shape[0]
        // plan.shapes[0][0]
    )
    return {"model": name, "batch": shape[0], "size": shape[1]} | _figures(
        seconds, flops, how.limit
    )


def _seconds(run: Callable[[], Any], repeats: int) -> list[float]:
    """How long each of some runs takes, after one that compiles and one that warms."""
    run()
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def _figures(seconds: Sequence[float], flops: int, limit: float) -> Row:
    """The numbers of a row: milliseconds, GFLOP/s and the part of the peak, which belong to the median."""
    speed = flops / median(seconds) / 1e9
    return {
        "gflop": flops / 1e9,
        "median_ms": median(seconds) * 1e3,
        "min_ms": min(seconds) * 1e3,
        "gflops": speed,
        "peak": speed / limit,
        "repeats": len(seconds),
    }


# --- layers ---------------------------------------------------------------------------------------


def layers(name: str, made: Program, shape: Sequence[int], how: Measuring) -> list[Row]:
    """Every distinct step of the plan for one shape, with the bias, residual and ReLU that are fused into it.

    Each is timed twice: in its place, where its weights come from memory and its input from the
    step before, and alone, again and again, where what fits the caches is in them.
    """
    plan, x = Plan(made, shape, how.ops, threads=how.threads), random_pictures(shape)
    found: dict[tuple[str, ...], list[int]] = {}
    inputs = _input_shapes(made, plan)
    samples = np.array([plan.profile(x, 1).seconds for _ in range(how.repeats)])
    for i, (call, given, out) in enumerate(zip(plan.calls, inputs, plan.shapes, strict=True)):
        found.setdefault(_kind(call, given, out), []).append(i)
    rows = []
    for kind, steps in found.items():
        call, given, out = plan.calls[steps[0]], inputs[steps[0]], plan.shapes[steps[0]]
        alone = _alone(call, given, out, how)
        row = {
            "model": name,
            "batch": shape[0],
            "size": shape[1],
            "name": call.name,
            "layer": " ".join(kind),
            "count": len(steps),
        }
        row |= _figures(samples[:, steps].reshape(-1).tolist(), 2 * macs(call, out), how.limit)
        rows.append(
            row | {"alone_median_ms": median(alone) * 1e3, "alone_min_ms": min(alone) * 1e3}
        )
    return rows


def _input_shapes(made: Program, plan: Plan) -> list[tuple[int, ...]]:
    """The shape of what each step reads; a plan keeps those of the results."""
    known = {id(call.out): shape for call, shape in zip(plan.calls, plan.shapes, strict=True)}
    known[id(made.x)] = (plan.shapes[0][0], *plan.x_shape[1:])
    return [known[id(call.args[0])] for call in plan.calls]


def _kind(call: Call, given: Sequence[int], out: Sequence[int]) -> tuple[str, ...]:
    """What makes two steps the same work, in words."""
    a = call.attrs
    kernel = "x".join(map(str, call.args[1].shape[2:])) if call.op == "conv2d" else ""
    words = [call.op, "x".join(map(str, given[1:])), "to", "x".join(map(str, out[1:])), kernel]
    words += [f"{key} {a[key]}" for key in ("stride", "groups") if a.get(key, 1) != 1]
    return tuple(
        word
        for word in (*words, "+residual" * ("residual" in a), "+relu" * bool(a.get("relu")))
        if word
    )


def _alone(call: Call, given: Sequence[int], out: Sequence[int], how: Measuring) -> list[float]:
    """The times of a step that is a plan of its own."""
    attrs = call.attrs | (
        {"residual": how.ops.upload(random_pictures(out, 2))} if "residual" in call.attrs else {}
    )
    plan = Plan(
        Program(call.args[0], (replace(call, attrs=attrs),)), given, how.ops, threads=how.threads
    )
    x = random_pictures(given)
    return [plan.profile(x, 1).seconds[0] for _ in range(how.repeats)]


# --- all of it ------------------------------------------------------------------------------------


def bench(
    models: Sequence[str] = ("resnext50_32x4d", "resnext101_32x8d"),
    batches: Sequence[int] = (1, 8),
    sizes: Sequence[int] = (160, 224, 288),
    threads: int | None = None,
    repeats: int = 10,
    every_layer: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    device: str = "cpu",
) -> Row:
    """Measure, and return what `text` prints and JSON holds.

    Parameters
    ----------
    models : sequence of str
        Names of architectures.
    batches, sizes : sequence of int
        Pictures at a time, and their sides.
    threads : int, optional
        By default, as many as cores this process may use.
    repeats : int
        How often everything is run.
    every_layer : bool
        Time the layers too.
    tell : callable
        Called with what is measured next.
    device : str
        As for `tinyresnext.load`.

    Raises
    ------
    UsageError
        When there is no such architecture, or there are not so many threads.
    """
    ops = backend(device)
    threads = ops.thread_count(threads)
    specs = {name: variant(name) for name in models}
    others, load = Others(), _load()
    with ops.on_threads(threads):
        tell("the machine")
        counts = sorted({n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < threads} | {threads})
        machine = ops.peak(counts)
        how = Measuring(ops, threads, machine[-1].gflops, repeats)
        rows: dict[str, list[Row]] = {"models": [], "layers": []}
        for name, spec in specs.items():
            made = program(random_parameters(spec), spec, ops)
            for batch, size in [(batch, size) for batch in batches for size in sizes]:
                tell(f"{name}, {batch} x {size} x {size}")
                arguments = (name, made, (batch, size, size, spec.channels), how)
                rows["models"].append(_fits(whole, *arguments))
                rows["layers"] += _fits(layers, *arguments) if every_layer else []
    head = {
        "schema": SCHEMA,
        "tinyresnext": __version__,
        "numba": version("numba"),
        "date": date.today().isoformat(),
    }
    head |= {
        "processor": processor(),
        "threads": threads,
        "machine": [limits._asdict() for limits in machine],
    }
    return head | rows | {"others": others.share(), "load_before": load, "load_after": _load()}


def _fits(measure: Callable[..., Any], *arguments: Any) -> Any:
    """Ops speak in ValueErrors about shapes; here the size is what was asked for."""
    try:
        return measure(*arguments)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"the network cannot take a picture of that size: {error}") from error


def _load() -> float | None:
    """How many processes wanted to run in the last minute, where the system says."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def write(path: str, report: Row) -> None:
    """Keep a report as JSON."""
    try:
        Path(path).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(
            f"{path!r} cannot be written: {error.strerror}; give another name"
        ) from error


def on_terminal(text: str) -> None:
    """Progress, where somebody sees it: one line that is written over and over."""
    if sys.stderr.isatty():
        print(f"\r{text:60.60}", end="" if text else "\r", file=sys.stderr, flush=True)
