"""From seven loops to the last kernel, one idea a rung: ``python benchmarks/ladder``.

Every rung is a file with ``pack(weight, groups)`` and ``conv2d(x, packed, bias, stride, groups,
out)``; each is checked against the definition before it is timed. Percentages are of the peak of
one core up to the rung with threads, and of all cores from there on, so the step from one core to
all shows in milliseconds. The peak is that of float32.

The rungs of ``bits``, from float32 to int8, have more functions: ``prepare(x)`` returns the input
in fewer bits, as the layer before would have stored it; ``rounded(x, weight)`` what the rung
computes with, so that its sums are held to the bound of float32; and ``missing()`` what the
processor lacks, so that the rung is checked there and not timed. All run on one thread.

To add a rung, write the file and put its name into the list below.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from tinyresnext.bench import processor  # noqa: E402  (the path above finds it)
from tinyresnext.ops import reference  # noqa: E402
from tinyresnext.ops.cpu.runtime import peak  # noqa: E402

POINTWISE = (
    "both_1_loops",
    "pointwise_2_order",
    "pointwise_3_block",
    "pointwise_4_pack",
    "pointwise_5_rows",
    "pointwise_6_threads",
    "pointwise_7_vectors",
    "both_last_cpu",
    "pointwise_8_strassen",  # behind the last one, since it has its tile, and is not in the package
)
GROUPED = (
    "both_1_loops",
    "grouped_2_im2col",
    "grouped_3_channels",
    "grouped_4_spread",
    "grouped_5_threads",
    "grouped_6_permute",
    "both_last_cpu",
)
BITS = (
    "bits_1_float32",
    "bits_2_bfloat16_apart",
    "bits_3_bfloat16_widened",
    "bits_4_bfloat16_words",
    "bits_5_int8_pairs",
    "bits_6_int8_fours",
    "bits_last_cpu",
)
THREADED = (*POINTWISE[5:], *GROUPED[4:])


class Layer(NamedTuple):
    """A convolution of ResNeXt-50, for one image."""

    c_in: int
    c_out: int
    side: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        groups = f", {self.groups} groups of {self.c_in // self.groups}" if self.groups > 1 else ""
        kind = f"{self.kernel}x{self.kernel}, stride {self.stride}" if self.kernel > 1 else "1x1"
        return f"{kind}, {self.c_in} to {self.c_out} channels{groups}, {self.side} x {self.side}"


LAYERS = {
    "pointwise": (POINTWISE, [Layer(256, 128, 56), Layer(512, 1024, 14), Layer(2048, 1024, 7)]),
    "grouped": (
        GROUPED,
        [
            Layer(128, 128, 56, 3, 1, 32),
            Layer(256, 256, 28, 3, 1, 32),
            Layer(512, 512, 14, 3, 1, 32),
        ],
    ),
    "bits": (BITS, [Layer(512, 256, 28), Layer(512, 1024, 14)]),
}


class Work(NamedTuple):
    """The arrays of a layer, and an upper limit of the error of each value."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    wanted: np.ndarray
    bound: np.ndarray
    flops: int


def work(layer: Layer) -> Work:
    """Return random arrays, always the same, and the result in float64."""
    random = np.random.default_rng(0)
    shape = (layer.c_out, layer.c_in // layer.groups, layer.kernel, layer.kernel)
    x = random.standard_normal((1, layer.side, layer.side, layer.c_in), np.float32)
    weight = random.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
    bias = np.float32(0.1) * random.standard_normal(layer.c_out, np.float32)
    wanted, bound = promised(layer, x, weight, bias)
    return Work(x, weight, bias, wanted, bound, 2 * wanted.size * int(np.prod(shape[1:])))


def promised(layer: Layer, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the result for input, weight and bias in float64, and a limit of each error."""
    how = {"stride": layer.stride, "padding": layer.kernel // 2, "groups": layer.groups}
    exact = [a.astype(np.float64) for a in arrays]
    wanted = np.maximum(reference.conv2d(*exact, **how), 0)
    # k products and a bias, in any order: |error| <= (k + 1) u / (1 - (k + 1) u) times the sum of
    # their magnitudes. Sums of integers are exact, and have four roundings behind them.
    terms = (int(np.prod(arrays[1].shape[1:])) + 1) * 2.0**-24
    return wanted, terms / (1 - terms) * reference.conv2d(*map(np.abs, exact), **how)


def check(rung: ModuleType, layer: Layer, w: Work) -> float:
    """Run once (which compiles), and compare with the result in float64.

    Returns
    -------
    float
        The largest error, as a part of the largest result.

    Raises
    ------
    AssertionError
        An error is larger than any order of summation allows, or than the rung's own ``bound``.
    """
    out = np.full(w.wanted.shape, np.nan, np.float32)
    packed = rung.pack(w.weight, layer.groups)
    rung.conv2d(given(rung, w), packed, w.bias, layer.stride, layer.groups, out)
    own, wanted, bound = getattr(rung, "bound", None), w.wanted, w.bound
    if own is not None:
        bound = own(w.x, w.weight, w.bias, layer.stride)
    elif hasattr(rung, "rounded"):
        wanted, bound = promised(layer, *rung.rounded(w.x, w.weight), w.bias)
    assert (np.abs(out - wanted) <= bound).all(), f"{rung.__name__} is wrong for {layer}"
    return float(np.abs(out - w.wanted).max() / np.abs(w.wanted).max())


def given(rung: ModuleType, w: Work) -> Any:
    """Return the input as a rung takes it."""
    return rung.prepare(w.x) if hasattr(rung, "prepare") else w.x


def missing(rung: ModuleType) -> str:
    """Return what the processor lacks for a rung, or nothing."""
    return rung.missing() if hasattr(rung, "missing") else ""


def seconds(rung: ModuleType, layer: Layer, w: Work, repeats: int) -> list[float]:
    """Measure the seconds of each of some runs, without packing."""
    packed, out, found = rung.pack(w.weight, layer.groups), np.empty(w.wanted.shape, np.float32), []
    x = given(rung, w)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        rung.conv2d(x, packed, w.bias, layer.stride, layer.groups, out)
        found.append(time.perf_counter() - start)
    return found[1:]


def main(argv: Sequence[str] | None = None) -> int:
    """Run every rung and print the table."""
    p = argparse.ArgumentParser(description="From seven loops to the last kernel, one idea a rung.")
    p.add_argument("which", nargs="?", choices=list(LAYERS), help="one of them; by default all")
    p.add_argument("--repeats", type=int, default=20, help="runs of each rung (20)")
    a = p.parse_args(argv)
    import numba

    all_threads = numba.get_num_threads()
    limits = dict(zip((1, all_threads), peak.multiply_adds((1, all_threads)), strict=True))
    print(
        f"{processor.processor()}: {limits[1]:.0f} GFLOP/s on one core, "
        f"{limits[all_threads]:.0f} on {all_threads}"
    )
    for name in [a.which] if a.which else LAYERS:
        rungs, layers = LAYERS[name]
        for layer in layers:
            w = work(layer)
            print(f"\n{layer}, {w.flops / 1e9:.3f} GFLOP")
            print(
                f"{'':22} {'median ms':>10} {'shortest':>10} {'GFLOP/s':>8} {'of peak':>8} "
                f"{'error':>8}"
            )
            for rung in map(import_module, rungs):
                error = check(rung, layer, w)
                if lacks := missing(rung):
                    print(f"{rung.__name__:22} not timed: {lacks}", flush=True)
                    continue
                found = seconds(rung, layer, w, a.repeats)
                speed = w.flops / median(found) / 1e9
                limit = limits[all_threads if rung.__name__ in THREADED else 1]
                times = f"{median(found) * 1e3:10.3f} {min(found) * 1e3:10.3f}"
                print(
                    f"{rung.__name__:22} {times} {speed:8.1f} {speed / limit:8.1%} {error:8.1e}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
