"""Measure the speed of networks here, as a part of what this machine can do.

There are three tables: the machine's limits (`Backend.peak`), whole networks, and every distinct
layer of a network. Each row has two times: the *median* of all runs is what to expect, and the
*shortest* is what is possible when no other process runs. If they lie far apart, the machine was
busy; the last line of the tables says how busy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version

from ..errors import UsageError
from ..images.checks import whole_number
from ..inference.inputs import shapes_that_fit
from ..network import count
from ..network.plan import program
from ..network.spec import Spec, variant
from ..ops import backend_of
from ..system.console import at_terminal, rewrite
from ..system.version import __version__
from ..system.writing import replacing
from .inputs import any_scales, random_parameters
from .measure import Measuring, Row, layers, whole
from .processor import Others, processor

SCHEMA = 1


def bench(
    models: Sequence[str] = ("resnext50_32x4d", "resnext101_32x8d"),
    batches: Sequence[int] = (1, 8),
    sizes: Sequence[int] = (160, 224, 288),
    threads: int | None = None,
    repeats: int = 10,
    every_layer: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    device: str = "cpu",
    precision: str = "float32",
) -> Row:
    """Measure the machine, then each network on each size of input.

    Parameters
    ----------
    models : sequence of str
        Names of architectures.
    batches, sizes : sequence of int
        Sizes of mini-batches, and side lengths of images in pixels.
    threads : int, optional
        By default, one for each core that this process may use.
    repeats : int
        The number of timed runs.
    every_layer : bool
        Also time the layers.
    tell : callable
        Called with the name of each measurement before it begins.
    device, precision : str
        As for `tinyresnext.load`; or ``int8``, for networks that are quantised with any scales.

    Returns
    -------
    dict
        The report that `tables.text` prints and `write` stores as JSON.

    Raises
    ------
    UsageError
        Before the first measurement: there is no such architecture, a size or a number of runs is
        no whole number from 1, the backend cannot use that many threads, or a network cannot take
        an image of that size.
    DeviceError
        There is no such device, or it does not compute in this precision.
    """
    ops, rounds = backend_of(device, precision), precision == "int8"
    threads = ops.thread_count(threads)
    specs = {name: variant(name) for name in models}
    batches = [whole_number("batch", one, 1) for one in batches]
    sizes = [whole_number("size", one, 1) for one in sizes]
    repeats = whole_number("repeats", repeats, 1)
    _check_shapes(specs, sizes)
    others, load = Others(), _load()
    with ops.on_threads(threads):
        tell("the machine")
        counts = sorted({n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < threads} | {threads})
        machine = ops.peak(counts)
        # What is measured is the peak of float32.
        limit = machine[-1].gflops if ops.precision == "float32" and not rounds else None
        how = Measuring(ops, threads, limit, repeats)
        rows: dict[str, list[Row]] = {"models": [], "layers": []}
        for name, spec in specs.items():
            scales = any_scales(spec) if rounds else None
            made = program(random_parameters(spec), spec, ops, scales)
            for batch, size in [(batch, size) for batch in batches for size in sizes]:
                tell(f"{name}, {batch} x {size} x {size}")
                shape = batch, size, size, spec.channels
                rows["models"].append(whole(name, made, shape, how))
                rows["layers"] += layers(name, made, shape, how) if every_layer else []
    head = {
        "schema": SCHEMA,
        "tinyresnext": __version__,
        "numba": version("numba"),
        "date": date.today().isoformat(),
        "processor": processor(),
        "device": ops.described() + ", in int8" * rounds,
        "threads": threads,
        "machine": [limits._asdict() for limits in machine],
    }
    return head | rows | {"others": others.share(), "load_before": load, "load_after": _load()}


def _check_shapes(specs: Mapping[str, Spec], sizes: Sequence[int]) -> None:
    """Raise `UsageError` unless every network can take images of every size; compute nothing."""
    for name, spec in specs.items():
        for size in sizes:
            try:
                with shapes_that_fit(spec):
                    count.layers(spec, size, size)
            except UsageError as error:
                raise UsageError(f"{name}, images of {size} x {size}: {error}") from error


def _load() -> float | None:
    """Return the load average of the last minute, or None if the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def write(path: str, report: Row) -> None:
    """Write a report as JSON.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def on_terminal(text: str) -> None:
    """Show progress on a terminal: one line of standard error that is overwritten each time."""
    if at_terminal():
        rewrite(text)
