"""The time of each layer of a network on a GPU, worked out on paper: nothing here is measured.

``python benchmarks/gpu_on_paper.py`` writes a table for `benchmarks/LOG.md`. No GPU is needed. A
plan of the network is made for a machine that computes nothing, so the launches are those that a
GPU would get. Of each step it takes the largest of three times:

* its multiply-adds, with those of zeros that fill up channels and slices, at the stated peak times
  the share of multiply-adds in the kernel's loop (what NVIDIA's assembler wrote,
  `tests/assembled.json`), times the part of the multiprocessors that have a block in the last round
  too;
* of a matrix product, its wavefronts of shared memory, one in a cycle of a multiprocessor, times
  the same part of them;
* its bytes, each array once, at the stated bandwidth.

The roofline beside it has the same without zeros, shares, wavefronts and rounds. The table is of
the forward pass of inference; no step of training is in it. Caches, latency, occupancy and what
lies between two kernels are left out, so a GPU is slower. The stated figures are of NVIDIA's data
sheet of the H100 SXM: 67 TFLOP/s in float32 without tensor cores, 3.35 TB/s, 132 multiprocessors.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tinyresnext.ops.cuda.conv.pack import BK, RUN  # noqa: E402
from tinyresnext.ops.cuda.conv.windows import rounded, whole  # noqa: E402

PEAK, BANDWIDTH, PROCESSORS = 67e12, 3.35e12, 132
SHARES = json.loads((ROOT / "tests" / "assembled.json").read_text("utf-8"))


class Paper:
    """A machine that computes nothing, and keeps what it would launch."""

    name, capability, multiprocessors = "paper", (9, 0), PROCESSORS

    def __init__(self) -> None:
        self._next = 1 << 20

    def allocate(self, size: int) -> Any:
        """Return a place; nobody reads or writes it."""
        self._next += -(-size // 256) * 256
        return SimpleNamespace(address=self._next, size=size)

    def room(self, size: int) -> Any:
        """Return another place."""
        return self.allocate(size)

    def free_bytes(self) -> int:
        """Return what an H100 has."""
        return 80 << 30

    def write(self, address: int, values: np.ndarray) -> None:
        """Forget the values."""

    def read(self, address: int, out: np.ndarray) -> None:
        """Return zeros."""
        out[...] = 0

    def wait(self) -> None:
        """Return at once."""

    def launch(self, launch: Any) -> None:
        """Forget the launch."""

    def prepare(self, launches: Sequence[Any]) -> Any:
        """Return a call of nothing."""
        return lambda: None


def share(kernel: Any) -> float:
    """Return the share of multiply-adds in a kernel's loop; 1 for kernels that only move."""
    if not kernel.name.startswith(("gemm", "grouped", "dots")):
        return 1.0
    return float(SHARES[f"{kernel.name} sm_90"]["ffma"] / 100)


def wavefronts(kernel: Any) -> float:
    """Return the time of a product's wavefronts, as a multiple of that of its multiply-adds.

    A cycle of a multiprocessor has one wavefront, of 128 bytes, or multiply-adds of four warps. A
    load of 16 bytes is four wavefronts of a warp: for each depth those are ``TM + TN``, for ``TM *
    TN`` multiply-adds. The others are of the copies, ``BM + BN`` values for each depth of a tile.
    """
    if not kernel.name.startswith("gemm"):
        return 0.0
    return 4.0 * sum(1 / int(side) for side in kernel.name.split("_")[1].split("x"))


def rounds(blocks: int) -> float:
    """Return which part of the multiprocessors is busy, over all rounds of blocks."""
    return blocks / (-(-blocks // PROCESSORS) * PROCESSORS)


def flops(op: str, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> float:
    """Return the floating point operations of a convolution or a linear layer, else 0."""
    if op == "conv2d":
        return 2.0 * np.prod(out) * np.prod(shapes[1][1:])
    return 2.0 * np.prod(out) * shapes[1][1] if op == "linear" else 0.0


def multiplied(weight: tuple[int, ...], groups: int) -> float:
    """Return how many times as much a matrix product multiplies as is wanted, for the zeros."""
    _, channels, *kernel = weight
    taps = int(np.prod(kernel))
    return rounded(taps * whole(channels, groups, RUN), BK) / (taps * channels)


def planned(model: str, batch: int, side: int) -> Any:
    """Return a plan of a network for a machine that computes nothing."""
    from tinyresnext.bench.inputs import random_parameters
    from tinyresnext.network.plan import Plan, program
    from tinyresnext.network.spec import variant
    from tinyresnext.ops import cuda

    spec, ops = variant(model), cuda.backend(Paper())
    return Plan(program(random_parameters(spec), spec, ops), (batch, side, side, 3), ops)


def layers(model: str, batch: int, side: int) -> list[tuple[str, float, float]]:
    """Return the name of each step, its time in microseconds, and its roofline's."""
    plan, found = planned(model, batch, side), []
    for call, step, out in zip(plan.calls, plan._steps, plan.shapes, strict=True):
        main = step.launches
        arrays = {
            id(a.memory) ^ a.address: a.nbytes
            for launch in main
            for a in launch.arguments
            if hasattr(a, "nbytes")
        }
        weight = next((a.shape for a in call.args[1:2]), ())
        work = flops(call.op, [(), weight], out) / PEAK
        traffic = sum(arrays.values()) / BANDWIDTH
        best = max(main, key=lambda one: share(one.kernel) < 1, default=None)
        slower = max(1 / share(best.kernel), wavefronts(best.kernel)) if best else 1.0
        slowed = work * slower / rounds(best.blocks) if best else work
        if best and best.kernel.name.startswith("gemm") and len(weight) == 4:
            slowed *= multiplied(weight, call.attrs.get("groups", 1))
        found.append((call.name or call.op, 1e6 * max(slowed, traffic), 1e6 * max(work, traffic)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="resnext50_32x4d")
    p.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256])
    p.add_argument("--size", type=int, default=224)
    a = p.parse_args(argv)
    tables = [layers(a.model, batch, a.size) for batch in a.batch]
    heads = "".join(f" batch {batch} | roofline |" for batch in a.batch)
    print(f"| microseconds |{heads}\n|---|{'---|' * 2 * len(a.batch)}")
    for rows in zip(*tables, strict=True):
        cells = "".join(f" {own:.1f} | {limit:.1f} |" for _, own, limit in rows)
        print(f"| {rows[0][0]} |{cells}")
    sums = ((sum(r[1] for r in t), sum(r[2] for r in t)) for t in tables)
    print("| all |" + "".join(f" {own:.0f} | {limit:.0f} |" for own, limit in sums))
    return 0


if __name__ == "__main__":
    sys.exit(main())
