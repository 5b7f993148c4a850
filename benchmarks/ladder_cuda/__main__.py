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
are those of PTX; the assembler removes some. Beside them stand the registers that it gives a
thread, and the share of multiply-adds in the hottest loop of what it makes.

The last rung changes no kernel, but how kernels are started. So the last line says what it is
about: how many launches a run of a network is, each of them a call of the driver without a graph.

On a GPU, ``--device cuda`` times the rungs instead. It prints the share of the measured peak of
float32, and the microseconds of a layer of ResNeXt-50 for one image, where starting a kernel takes
as long as it computes. The launches of the last rung are one graph; those of the others are started
one by one.

To add a rung, write the file and put its name into the list below.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[up]) for up in range(3)]

from tinyresnext.ops.cuda.runtime.arrays import download, empty, upload  # noqa: E402
from tinyresnext.ops.cuda.runtime.call import Call, chain  # noqa: E402
from tinyresnext.ops.cuda.runtime.kernel import Kernel  # noqa: E402

RUNGS = (
    "rung_1_loops",
    "rung_2_neighbours",
    "rung_3_shared",
    "rung_4_registers",
    "rung_5_vectors",
    "rung_6_copies",
    "rung_7_tensor_cores",
    "rung_8_graph",
)
NETWORK, SIDE = "resnext50_32x4d", 224  # whose launches are counted, for one image
HALF = {"rung_7_tensor_cores"}  # rungs that round their input to float16, by 2^-11 of it
TENSOR = 1 / 16  # of the time of float32, on tensor cores: NVIDIA's figures for A100 and H100
UNITS = 4  # of a multiprocessor, each 32 multiply-adds a cycle
SECTORS = 4  # that its first cache delivers in a cycle
STARTS, REPEATS = 10, 5  # of a rung in a measurement, and measurements; the shortest counts
SMALL, LARGE = (256, 128, 128), (100_352, 256, 256)  # to count, and for a whole GPU


class Layer(NamedTuple):
    """A 1x1 convolution: positions, input and output channels."""

    positions: int
    c_in: int
    c_out: int


ONE = Layer(196, 1024, 256)  # of ResNeXt-50's third stage, for one image


def check(rung: ModuleType, layer: Layer, machine: Any) -> list[Kernel]:
    """Run a rung once, compare with the result in float64, and return the kernels that compute.

    The first one multiplies; a second one ends sums that are parts of a depth.

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
    launches = rung.launches(*arrays, out)
    Call(machine, launches)()
    exact = [a.astype(np.float64) for a in (x, weight, bias)]
    wanted = np.maximum(exact[0] @ exact[1] + exact[2], 0)
    # NVIDIA does not say that tensor cores round to nearest.
    half = rung.__name__ in HALF
    terms = (layer.c_in + 1) * 2.0 ** (-23 if half else -24)
    bound = (1 + terms / (1 - terms)) * (1 + (2.0**-11 if half else 0)) ** 2 - 1
    size = np.abs(exact[0]) @ np.abs(exact[1]) + np.abs(exact[2])
    error = np.abs(download(out) - wanted)
    assert (error <= bound * size).all(), f"{rung.__name__} is wrong for {layer}"
    kernels = [one.kernel for one in launches]
    return kernels[-2 if kernels[-1].name.startswith("fold") else -1 :]  # those before lay out


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


def costs(rung: ModuleType, layer: Layer) -> tuple[Costs, Kernel]:
    """Execute a rung's PTX and count; return the kernel that multiplies, too."""
    from tinyresnext.emulator.ptx import PtxMachine

    machine = PtxMachine(count=True, multiprocessors=1)
    kernels = check(rung, layer, machine)
    counted = [machine.counters[kernel.name] for kernel in kernels]
    adds = layer.positions * layer.c_in * layer.c_out / 32  # of warps
    found = Costs(
        sum(sum(one.instructions.values()) for one in counted) / adds,
        sum(one.wavefronts for one in counted) * UNITS / adds,
        sum(one.sectors for one in counted) * UNITS / SECTORS / adds,
        TENSOR if rung.__name__ in HALF else 1.0,
    )
    return found, kernels[0]


def count(layer: Layer) -> None:
    """Count every rung and print the table."""
    from tinyresnext.emulator.assembler import assemble

    heads = ("FFMA", "registers", "issue", "shared", "global", "of peak")
    print(f"{'':20}" + "".join(f"{head:>10}" for head in heads))
    known: dict[Callable[..., Any], tuple[Costs, Kernel]] = {}  # the last rung's are there already
    for name in RUNGS:
        rung = import_module(name)
        if rung.launches not in known:
            known[rung.launches] = costs(rung, layer)
        c, kernel = known[rung.launches]
        made = assemble(kernel, (8, 0))
        print(
            f"{name:20}{made.share:10.0%}{made.registers:10}{c.issue:10.2f}{c.shared:10.2f}"
            f"{c.memory:10.2f}{c.peak:10.0%}",
            flush=True,
        )
    from gpu_on_paper import planned

    plan = planned(NETWORK, 1, SIDE)
    calls = sum(len(step.launches) for step in plan._steps)
    print(f"{NETWORK}, one image: {calls} launches, or one graph")


def seconds(rung: ModuleType, layer: Layer, machine: Any) -> float:
    """Return the time of a rung, started kernel by kernel or as a part of a graph."""
    x, weight, bias = (
        upload(machine, np.zeros(shape, np.float32))
        for shape in ((layer.positions, layer.c_in), (layer.c_in, layer.c_out), layer.c_out)
    )
    out = empty(machine, (layer.positions, layer.c_out))
    call = Call(machine, rung.launches(x, weight, bias, out))

    def one_by_one() -> None:
        for _ in range(STARTS):
            call()

    run = chain([call] * STARTS) if getattr(rung, "TOGETHER", False) else one_by_one
    found = []
    for _ in range(REPEATS + 1):  # the first one compiles
        start = time.perf_counter()
        run()
        machine.wait()
        found.append(time.perf_counter() - start)
    return min(found) / STARTS


def measure(device: str, layer: Layer, one: Layer = ONE) -> Iterator[dict[str, Any]]:
    """Yield what each rung reaches on a GPU.

    Yields
    ------
    dict
        The name of the rung, its share of the measured peak for ``layer``, and the microseconds of
        ``one``.
    """
    from tinyresnext.ops import backend

    ops: Any = backend(device)
    peak, flops = 1e9 * ops.peak([1])[0].gflops, 2.0 * np.prod(layer)
    for name in RUNGS:
        rung = import_module(name)
        share = flops / seconds(rung, layer, ops.machine) / peak
        yield {"rung": name, "of_peak": share, "one_us": 1e6 * seconds(rung, one, ops.machine)}


def main(argv: Sequence[str] | None = None) -> int:
    """Count or time every rung and print the table."""
    p = argparse.ArgumentParser(description="From one thread a result to the last kernel of a GPU.")
    for name, values in zip(Layer._fields, zip(SMALL, LARGE, strict=True), strict=True):
        said = "{}, with --device {}".format(*values)
        p.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"({said})")
    p.add_argument("--device", help="time on this GPU, such as cuda, in place of counting")
    a = p.parse_args(argv)
    usual = LARGE if a.device else SMALL
    given = (getattr(a, name) for name in Layer._fields)
    layer = Layer(*(u if g is None else g for g, u in zip(given, usual, strict=True)))
    print(f"1x1, {layer.positions} positions, {layer.c_in} to {layer.c_out} channels")
    if a.device is None:
        count(layer)
        return 0
    print(f"{'':20}{'of peak':>12}{'{}x{}x{}, us'.format(*ONE):>20}")
    for row in measure(a.device, layer):
        print(f"{row['rung']:20}{row['of_peak']:12.0%}{row['one_us']:20.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
