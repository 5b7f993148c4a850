"""What calls save that share weights or values: three trials whose figures are in LOG.md.

``python benchmarks/sharing.py batches`` takes 8 samples through each stage of ResNeXt-50, one, two,
four and eight together, and 64 through the bundled model as its plan does and one by one.
``rows`` computes the last 1x1 of a block and the first 1x1 of the next in pieces of an image: first
all of the one and then all of the other, and in turn. In turn, the second reads from the second
cache what the first has just written. ``training`` does the same for a 1x1 convolution and the
statistics of its result, and for normalising and the next 1x1. All on one thread, in processor
time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import tinyresnext as tr
from tinyresnext.bench.inputs import random_parameters, random_pictures
from tinyresnext.network.plan import Plan, Program, program
from tinyresnext.ops import cpu
from tinyresnext.ops.cpu.moments import _moments, cut
from tinyresnext.ops.cpu.norm_train import Normalising, _normalise
from tinyresnext.ops.cpu.runtime.crew import Step

ROUNDS = 25
LARGE = np.ones(12 << 20, np.float32)  # 48 MiB: read between two runs, it takes the caches' place


class Fixed:
    """The processor as a backend on which so many samples always go together."""

    def __init__(self, some: int) -> None:
        self.some = some

    def __getattr__(self, name: str) -> Any:
        return getattr(cpu, name)

    def at_once(self, n: int, weights: int, values: int) -> int:
        """Return the number, whatever the layers are."""
        return self.some


def filled(*shape: int) -> np.ndarray:
    """Return memory of the backend with random values."""
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    return cpu.upload(values, out=cpu.empty(shape))


def in_turn(title: str, ways: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS) -> None:
    """Run all ways again and again, and print each one's shortest and median time."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            LARGE.sum()
            start = time.process_time()
            ways[name]()
            found[name].append(1e3 * (time.process_time() - start))
    found = {name: times[1:] for name, times in found.items()}  # the first may compile
    first = next(iter(found.values()))
    print(f"\n{title}: least and median ms, and of the first row's")
    for name, times in found.items():
        least, middle = min(times), median(times)
        ratios = f"{least / min(first):5.3f} {middle / median(first):5.3f}"
        print(f"  {name:34} {least:8.2f} {middle:8.2f}   {ratios}")


def together(title: str, part: Program, x: np.ndarray, ways: Mapping[str, Any]) -> None:
    """Time a part of a network on backends that take other numbers of samples together."""
    plans = {name: Plan(part, x.shape, ops, threads=1) for name, ops in ways.items()}
    assert len({plan(x).tobytes() for plan in plans.values()}) == 1
    in_turn(title, {name: partial(plan, x) for name, plan in plans.items()})


def batches() -> None:
    """Time stages with so many samples together, and the bundled model's plan."""
    spec = tr.variant("resnext50_32x4d")
    made = program(random_parameters(spec), spec, cpu)
    whole = Plan(made, (1, 224, 224, 3), cpu, threads=1)
    fixed = {f"{some} together": Fixed(some) for some in (1, 2, 4, 8)}
    for stage in ("layer2", "layer3", "layer4"):
        own = [t for t, call in enumerate(made.calls) if call.name.startswith(f"{stage}.")]
        part = Program(made.calls[own[0] - 1].out, made.calls[own[0] : own[-1] + 1])
        x = random_pictures((8, *whole.shapes[own[0] - 1][1:]))
        together(f"ResNeXt-50, {stage}, 8 samples", part, x, fixed)
    spec = tr.load().spec
    made, x = program(random_parameters(spec), spec, cpu), random_pictures((64, 32, 32, 3))
    ways = {"one by one": Fixed(1), "as the plan has them": cpu}
    together("bundled model, 64 samples", made, x, ways)


def pairs(one: list[Any], other: list[Any]) -> dict[str, Callable[[], None]]:
    """Return two ways through two lists of calls: one after the other, and in turn."""
    return {
        "one after the other, in pieces": cpu.chain(one + other),
        "in turn: values shared": cpu.chain(list(chain(*zip(one, other, strict=True)))),
    }


def rows() -> None:
    """Time the last 1x1 of a block and the first of the next."""
    neighbours(56, (128, 256, 128), 2)
    neighbours(56, (128, 256, 256), 2)
    neighbours(28, (256, 512, 256), 4)
    neighbours(28, (256, 512, 256), 14)
    neighbours(14, (512, 1024, 512), 7)


def neighbours(side: int, channels: tuple[int, int, int], lines: int) -> None:
    """Time two 1x1 convolutions between so many channels, in pieces of some lines."""
    x, shortcut, out, end = (filled(1, side, side, c) for c in (*channels[:2], *channels[1:]))
    last, first = (cpu.pack(filled(b, a, 1, 1), 1) for a, b in pairwise(channels))

    def both(at: slice) -> list[Any]:
        here = {"residual": shortcut[:, at], "relu": True, "out": out[:, at]}
        return [
            cpu.bind("conv2d", x[:, at], last, **here),
            cpu.bind("conv2d", out[:, at], first, relu=True, out=end[:, at]),
        ]

    pieces = [both(slice(line, line + lines)) for line in range(0, side, lines)]
    one, other = map(list, zip(*pieces, strict=True))
    ways = {"two steps": cpu.chain(both(slice(None)))} | pairs(one, other)
    words = " to ".join(map(str, channels))
    in_turn(f"{side} x {side}: {words}, {lines} lines", ways, 4 * ROUNDS)


def training() -> None:
    """Time a 1x1 with the statistics of its result, and normalising with the next 1x1."""
    normalised(65536, 64, 256, 256)
    normalised(16384, 128, 512, 256)


def normalised(positions: int, narrow: int, wide: int, piece: int) -> None:
    """Time a batch norm in training beside the 1x1 before it and the one behind it, in pieces."""
    lines = positions // 32
    x, y, z = (cpu.empty((1, lines, 32, c)) for c in (narrow, wide, wide))
    x[...] = 1
    up, down = (cpu.pack(filled(a, b, 1, 1), 1) for a, b in ((wide, narrow), (narrow, wide)))
    zeros, norm = np.zeros(wide, np.float32), np.ones(3 * wide, np.float32)

    def sums(a: np.ndarray) -> Step:
        g = cut(a.size, a.shape[-1])
        out = cpu.empty((g.tasks * 2 * g.channels,))
        return Step(_moments, g, x=a.reshape(-1), origin=zeros, out=out)

    def normal(a: np.ndarray, b: np.ndarray) -> Step:
        g, flat = cut(a.size, a.shape[-1]), a.reshape(-1)
        numbers = Normalising(g.positions, g.channels, 0, 1, g.length, g.tasks)
        return Step(_normalise, numbers, x=flat, norm=norm, residual=flat, out=b.reshape(-1))

    at = [np.s_[:, line : line + piece // 32] for line in range(0, lines, piece // 32)]
    convolve = [cpu.bind("conv2d", x[s], up, out=y[s]) for s in at]
    following = [cpu.bind("conv2d", z[s], down, out=x[s]) for s in at]
    title = f"{positions} positions, {narrow} to {wide}"
    ways = pairs(convolve, [sums(y[s]) for s in at]) | {"statistics alone": sums(y)}
    in_turn(f"{title}, then its statistics", ways)
    ways = pairs([normal(y[s], z[s]) for s in at], following)
    in_turn(f"{title}, normalised, then to {narrow}", ways | {"normalising alone": normal(y, z)})


if __name__ == "__main__":
    trials = {"batches": batches, "rows": rows, "training": training}
    if len(sys.argv) != 2 or sys.argv[1] not in trials:
        sys.exit(f"usage: sharing.py {'|'.join(trials)}")
    with cpu.on_threads(1):
        trials[sys.argv[1]]()
