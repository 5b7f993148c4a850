"""What ranks cost each other: a step of training by itself, and shared by the ranks of mpiexec.

``mpiexec -n 2 python benchmarks/ranks.py`` takes a minute, and prints one line of JSON. Each rank
has one thread and the same number of images, however many ranks there are, so a step takes as long
as alone where nothing is lost. Times are the least of many repeats, in seconds: by the clock, and
of the processor, which also counts on a machine that others use; a rank that waits asks again and
again, and that counts too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent)]

SIDE = 32


def least(call: Callable[[], object], seconds: float, ranks: Any) -> dict[str, float]:
    """Return the least times of a call that all ranks repeat together."""
    call()
    clock, processor, end = [], [], time.monotonic() + seconds
    going = np.full(1, ranks.count, np.float64)
    while going[0] == ranks.count:
        began, used = time.perf_counter(), time.process_time()
        call()
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
        going[0] = time.monotonic() < end
        ranks.sum(going)
    return {"clock": min(clock), "processor": min(processor), "repeats": len(clock)}


def main() -> None:
    """Measure, and print what the first rank found."""
    from tinyresnext.network.resnext import parameters
    from tinyresnext.network.spec import cifar
    from tinyresnext.network.step import Step
    from tinyresnext.ops import backend
    from tinyresnext.system.mpi import Mpi

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1, help="images of a rank in a step")
    parser.add_argument("--seconds", type=float, default=10, help="for each measurement")
    a = parser.parse_args()
    spec = cifar(29, 8, 16)
    ranks, ops, rng = Mpi(), backend("cpu"), np.random.default_rng(0)
    params = {}
    for name, shape in parameters(spec).items():
        drawn = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 1
        params[name] = ops.upload(np.full(shape, drawn, np.float32))
    values = sum(p.size for name, p in params.items() if ".running_" not in name)
    x = rng.normal(size=(a.images, SIDE, SIDE, 3)).astype(np.float32)
    labels = rng.integers(0, spec.classes, a.images)
    found: dict[str, object] = {"ranks": ranks.count, "images": a.images, "bytes": 4 * values}
    flat, few = np.zeros(values, np.float32), np.zeros(257)
    if ranks.count > 1:
        found["sum of all gradients"] = least(lambda: ranks.sum(flat), a.seconds, ranks)
        found["sum of a norm"] = least(lambda: ranks.sum(few), a.seconds / 4, ranks)
    for name, sync in (("step", False), ("step with shared norms", True)):
        if sync and ranks.count == 1:
            continue
        step = Step(params, spec, x.shape, ops, threads=1, ranks=ranks, sync_norm=sync)
        found[name] = least(lambda step=step: step(x, labels), a.seconds, ranks)
    if ranks.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
