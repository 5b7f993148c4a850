"""From one thread a result to the last kernel of a GPU: ``python benchmarks/ladder_cuda``.

No GPU is needed. The compiled kernels are executed on the processor, instruction by instruction,
and counted (`tinyresnext.emulator.ptx`). Three counts say what can hold a kernel back, whatever it
is timed with, as multiples of the time that its multiply-adds take on a processor with four units
of 32 (each rung is as fast as the largest allows, at best):

* *issue*: instructions for one multiply-add. Each of the four units begins one in a cycle.
* *shared*: wavefronts of shared memory. There is one in a cycle, and four multiply-adds.
* *global*: sectors of 32 bytes. The first cache delivers four in a cycle.

``of peak`` is one by the largest. It is of the peak of float32 also for tensor cores, which are 16
times as fast as that. What it leaves out is waiting: that needs a GPU and a clock. The instructions
are those of PTX; the assembler removes some.

To add a rung, write the file and put its name into the list below.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from tinyresnext.ops.cuda.runtime.arrays import download, empty, upload  # noqa: E402

RUNGS = (
    "rung_1_loops",
    "rung_2_neighbours",
    "rung_3_shared",
    "rung_4_registers",
    "rung_5_vectors",
    "rung_6_copies",
    "rung_7_tensor_cores",
)
HALF = {"rung_7_tensor_cores"}  # rungs that round their input to float16, by 2^-11 of it
TENSOR = 1 / 16  # of the time of float32, on tensor cores: NVIDIA's figures for A100 and H100
UNITS = 4  # of a multiprocessor, each 32 multiply-adds a cycle
SECTORS = 4  # that its first cache delivers in a cycle


class Layer(NamedTuple):
    """A 1x1 convolution: positions, input and output channels."""

    positions: int
    c_in: int
    c_out: int


def check(rung: ModuleType, layer: Layer, machine: Any) -> None:
    """Run a rung once and compare with the result in float64.

    Raises
    ------
    AssertionError
        An error is larger than any order of summation allows.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((layer.positions, layer.c_in), np.float32)
    weight = rng.standard_normal((layer.c_in, layer.c_out), np.float32)
    bias = rng.standard_normal(layer.c_out, np.float32)
    arrays = [upload(machine, a) for a in (x, weight, bias)]
    out = empty(machine, (layer.positions, layer.c_out))
    for launch in rung.launches(*arrays, out):
        machine.launch(launch)
    exact = [a.astype(np.float64) for a in (x, weight, bias)]
    wanted = np.maximum(exact[0] @ exact[1] + exact[2], 0)
    # NVIDIA does not say that tensor cores round to nearest.
    half = rung.__name__ in HALF
    terms = (layer.c_in + 1) * 2.0 ** (-23 if half else -24)
    bound = (1 + terms / (1 - terms)) * (1 + (2.0**-11 if half else 0)) ** 2 - 1
    size = np.abs(exact[0]) @ np.abs(exact[1]) + np.abs(exact[2])
    error = np.abs(download(out) - wanted)
    assert (error <= bound * size).all(), f"{rung.__name__} is wrong for {layer}"


class Costs(NamedTuple):
    """What a kernel asks for, as multiples of the time of its multiply-adds."""

    issue: float
    shared: float
    memory: float
    multiply: float = 1.0

    @property
    def peak(self) -> float:
        """Return the part of peak that these allow."""
        return 1 / max(self)


def costs(rung: ModuleType, layer: Layer) -> Costs:
    """Execute a rung's PTX and count."""
    from tinyresnext.emulator.ptx import PtxMachine

    machine = PtxMachine(count=True, multiprocessors=1)
    check(rung, layer, machine)
    *_, counted = machine.counters.values()  # kernels before the last one lay out
    adds = layer.positions * layer.c_in * layer.c_out / 32  # of warps
    return Costs(
        sum(counted.instructions.values()) / adds,
        counted.wavefronts * UNITS / adds,
        counted.sectors * UNITS / SECTORS / adds,
        TENSOR if rung.__name__ in HALF else 1.0,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Count every rung and print the table."""
    p = argparse.ArgumentParser(description="From one thread a result to the last kernel of a GPU.")
    for name, value in zip(Layer._fields, (256, 128, 128), strict=True):
        p.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"({value})")
    layer = Layer(**vars(p.parse_args(argv)))
    print(f"1x1, {layer.positions} positions, {layer.c_in} to {layer.c_out} channels")
    print(f"{'':20} {'issue':>7} {'shared':>7} {'global':>7} {'of peak':>8}")
    for name in RUNGS:
        c = costs(import_module(name), layer)
        print(f"{name:20} {c.issue:7.2f} {c.shared:7.2f} {c.memory:7.2f} {c.peak:8.0%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
