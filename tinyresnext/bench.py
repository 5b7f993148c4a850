"""How fast the network runs here, as a part of what this machine can do.

Three tables: the machine's limits (`tinyresnext.peak`), whole networks, and every distinct layer of a network. Weights
are random, because time does not depend on what a network knows; but they are of the usual size, because it does depend
on numbers so small that the processor takes a detour (denormals).

Two numbers are given for each: the *median* is what to expect, the *shortest* what is possible when nobody else runs.
Where they lie far apart, the machine was busy, and the last line says how busy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np

from . import __version__, peak
from .errors import UsageError
from .ops import cpu
from .plan import Plan, Program, macs, program
from .resnext import parameters
from .spec import Spec, variant
from .tape import Call

SCHEMA = 1
Row = dict[str, Any]


# --- what is run ------------------------------------------------------------------------------------------------------


def random_parameters(spec: Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights as training begins with them (He et al. 2015), with norms that have seen something; always the same ones.

    Parameters
    ----------
    spec : Spec
    seed : int

    Returns
    -------
    dict
        Every parameter that `tinyresnext.resnext.parameters` names, float32.
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


# --- whole networks ---------------------------------------------------------------------------------------------------


def whole(name: str, made: Program, shape: Sequence[int], threads: int, limit: float, repeats: int) -> Row:
    """One network, one shape of input."""
    plan, x = Plan(made, shape, cpu, threads=threads), random_pictures(shape)
    seconds = _seconds(lambda: plan(x), repeats)
    # A plan may take a batch through the network in several parts.
    flops = 2 * sum(macs(call, out) for call, out in zip(plan.calls, plan.shapes, strict=True)) * shape[0] // plan.shapes[0][0]
    return {"model": name, "batch": shape[0], "size": shape[1]} | _figures(seconds, flops, limit)


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


# --- layers -----------------------------------------------------------------------------------------------------------


def layers(name: str, made: Program, shape: Sequence[int], threads: int, limit: float, repeats: int) -> list[Row]:
    """Every distinct step of the plan for one shape, with the bias, residual and ReLU that are fused into it.

    Each is timed twice: in its place, where its weights come from memory and its input from the step before, and alone,
    again and again, where what fits the caches is in them.
    """
    plan, x, found = Plan(made, shape, cpu, threads=threads), random_pictures(shape), {}
    inputs = _input_shapes(made, plan)
    samples = np.array([plan.profile(x, 1).seconds for _ in range(repeats)])
    for i, (call, given, out) in enumerate(zip(plan.calls, inputs, plan.shapes, strict=True)):
        found.setdefault(_kind(call, given, out), []).append(i)
    rows = []
    for kind, steps in found.items():
        call, given, out = plan.calls[steps[0]], inputs[steps[0]], plan.shapes[steps[0]]
        alone = _alone(call, given, out, threads, repeats)
        row = {
            "model": name,
            "batch": shape[0],
            "size": shape[1],
            "name": call.name,
            "layer": " ".join(kind),
            "count": len(steps),
        }
        row |= _figures(samples[:, steps].reshape(-1), 2 * macs(call, out), limit)
        rows.append(row | {"alone_median_ms": median(alone) * 1e3, "alone_min_ms": min(alone) * 1e3})
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
    return tuple(word for word in (*words, "+residual" * ("residual" in a), "+relu" * bool(a.get("relu"))) if word)


def _alone(call: Call, given: Sequence[int], out: Sequence[int], threads: int, repeats: int) -> list[float]:
    """The times of a step that is a plan of its own."""
    attrs = call.attrs | ({"residual": random_pictures(out, 2)} if "residual" in call.attrs else {})
    plan = Plan(Program(call.args[0], (replace(call, attrs=attrs),), given[-1]), given, cpu, threads=threads)
    x = random_pictures(given)
    return [plan.profile(x, 1).seconds[0] for _ in range(repeats)]


# --- all of it --------------------------------------------------------------------------------------------------------


def bench(
    models: Sequence[str] = ("resnext50_32x4d", "resnext101_32x8d"),
    batches: Sequence[int] = (1, 8),
    sizes: Sequence[int] = (160, 224, 288),
    threads: int | None = None,
    repeats: int = 10,
    every_layer: bool = False,
    tell: Callable[[str], None] = lambda text: None,
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
        Is told what is measured next.

    Raises
    ------
    UsageError
        When there is no such architecture, or there are not so many threads.
    """
    threads = cpu.thread_count(threads)
    specs = {name: variant(name) for name in models}
    others, load = peak.Others(), _load()
    with cpu.on_threads(threads):
        tell("the machine")
        counts = sorted({n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < threads} | {threads})
        machine = peak.measure(counts)
        rows: dict[str, list[Row]] = {"models": [], "layers": []}
        for name, spec in specs.items():
            made = program(random_parameters(spec), spec, cpu)
            for batch, size in [(batch, size) for batch in batches for size in sizes]:
                tell(f"{name}, {batch} x {size} x {size}")
                arguments = (name, made, (batch, size, size, spec.channels), threads, machine[-1].gflops, repeats)
                rows["models"].append(_fits(whole, *arguments))
                rows["layers"] += _fits(layers, *arguments) if every_layer else []
    head = {"schema": SCHEMA, "tinyresnext": __version__, "numba": numba.__version__, "date": date.today().isoformat()}
    head |= {"processor": peak.processor(), "threads": threads, "machine": [limits._asdict() for limits in machine]}
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
        raise UsageError(f"{path!r} cannot be written: {error.strerror}; give another name") from error


def on_terminal(text: str) -> None:
    """Progress, where somebody sees it: one line that is written over and over."""
    if sys.stderr.isatty():
        print(f"\r{text:60.60}", end="" if text else "\r", file=sys.stderr, flush=True)


# --- for people -------------------------------------------------------------------------------------------------------


def text(report: Row) -> str:
    """The tables."""
    lines = [f"{report['processor']}, {report['threads']} threads, tinyresnext {report['tinyresnext']}", ""]
    lines.append(f"{'threads':>7} {'multiply-adds':>18} {'reading':>12} {'copying':>12}")
    for m in report["machine"]:
        lines.append(f"{m['threads']:7} {m['gflops']:10.1f} GFLOP/s {m['read']:7.1f} GB/s {m['copy']:7.1f} GB/s")
    lines += ["", f"{'model':20} {'batch':>5} {'size':>5} {_FIGURES} {'images/s':>9}"]
    for row in report["models"]:
        rate = row["batch"] / row["median_ms"] * 1e3
        lines.append(f"{row['model']:20} {row['batch']:5} {row['size']:5} {_row(row)} {rate:9.1f}")
    for key, rows in _tables(report["layers"]):
        lines += ["", f"{key[0]}, {key[1]} x {key[2]} x {key[2]}"]
        lines.append(f"{'layer':72} {'times':>5} {_FIGURES} {'alone':>9}")
        lines += [f"{row['layer']:72} {row['count']:5} {_row(row)} {row['alone_median_ms']:9.3f}" for row in rows]
    return "\n".join([*lines, "", _honestly(report)]) + "\n"


_FIGURES = f"{'GFLOP':>8} {'median ms':>9} {'shortest':>9} {'GFLOP/s':>8} {'of peak':>8}"


def _row(row: Row) -> str:
    """The figures of a row; where nothing is multiplied, there is no speed."""
    speed = f"{row['gflops']:8.1f} {row['peak']:8.1%}" if row["gflop"] else f"{'':8} {'':8}"
    return f"{row['gflop']:8.3f} {row['median_ms']:9.3f} {row['min_ms']:9.3f} {speed}"


def _tables(rows: Iterable[Row]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """The layers of each network and shape."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["model"], row["batch"], row["size"]), []).append(row)
    return list(found.items())


def _honestly(report: Row) -> str:
    """How far the figures can be trusted."""
    others, load = report["others"], report["load_before"]
    said = [f"other processes took {others:.0%} of the time of all cores"] if others is not None else []
    said += [f"load average {load:.2f} before and {report['load_after']:.2f} after"] if load is not None else []
    if others is not None and others > 0.05:
        said.append("the machine was busy, so trust the shortest times, and ratios taken in one run, and nothing else")
    return "; ".join(said) or "this system does not say what else was running"
