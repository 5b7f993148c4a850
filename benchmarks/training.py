"""Compare a training step with PyTorch's, in turn, each in its own process.

``python benchmarks/training.py`` takes about fifteen minutes. A step is what both do for a
mini-batch that is already in memory: forward, loss, backward, SGD with Nesterov's momentum and
weight decay, running statistics. All begin with the same weights and images, and must have the same
losses in their first three steps. The result is the ratio of images a second (medians), and the
largest memory of each process, including interpreter and libraries. With ``--precision bfloat16``
ours in bfloat16 is compared with PyTorch under autocast and in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

CASES = {"resnext20_8x4d": (20, 8, 4), "resnext29_8x16d": (29, 8, 16)}  # depth, cardinality, width
OURS, BITS = "tinyresnext", "tinyresnext, bfloat16"
ENGINES = (OURS, "pytorch", "pytorch, channels last")
AUTOCAST = ("pytorch, autocast", "pytorch, autocast, channels last")
REST = 0.2  # seconds of sleep before each turn
# Between losses of the first three steps; rounding in float32 makes some 1e-5, in bfloat16 1e-2.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}
LR, MOMENTUM, DECAY, SMOOTHING = 0.02, 0.9, 5e-4, 0.1


def ours(
    folder: Path, name: str, x: np.ndarray, labels: np.ndarray, threads: int, precision: str
) -> Callable[[], float]:
    """Return a step like those of `tinyresnext.training.run`."""
    from tinyresnext import cifar
    from tinyresnext.network.step import Step
    from tinyresnext.ops import backend
    from tinyresnext.training.optimisers.sgd import sgd
    from tinyresnext.training.optimisers.statistics import update_statistics
    from tinyresnext.training.recipes.optimiser import Optimiser
    from tinyresnext.training.weights import size, views

    spec, cpu = cifar(*CASES[name]), backend("cpu", precision)
    params, velocity = (views(np.zeros(size(spec), np.float32), spec) for _ in range(2))
    with np.load(folder / "arrays.npz") as found:
        for key in params:
            params[key][...] = found[key]
    compute = Step(params, spec, x.shape, cpu, smoothing=SMOOTHING, threads=threads)
    how = Optimiser(nesterov=True, momentum=MOMENTUM, weight_decay=DECAY)

    def run() -> float:
        loss, _ = compute(x, labels)
        sgd(cpu, params, compute.gradients, velocity, how, LR)
        update_statistics(cpu, params, compute.statistics, compute.positions)
        return loss

    return run


def pytorch(
    folder: Path, x: np.ndarray, labels: np.ndarray, threads: int, channels_last: bool, cast: bool
) -> Callable[[], float]:
    """Return a step with the modules and the optimiser that a user would choose.

    Under autocast, if ``cast``: convolutions and the classifier compute in bfloat16.
    """
    import torch as pt
    from torch_module import Network

    pt.set_num_threads(threads)
    with np.load(folder / "arrays.npz") as found:
        network = Network(
            json.loads((folder / "steps.json").read_text("utf-8")), dict(found)
        ).train()
    images = pt.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    classes = pt.from_numpy(labels)
    if channels_last:
        network = network.to(memory_format=pt.channels_last)
        images = images.to(memory_format=pt.channels_last)
    optimiser = pt.optim.SGD(network.parameters(), LR, MOMENTUM, nesterov=True, weight_decay=DECAY)

    def run() -> float:
        optimiser.zero_grad()
        with pt.autocast("cpu", pt.bfloat16, enabled=cast):
            logits = network(images)
            loss = pt.nn.functional.cross_entropy(logits, classes, label_smoothing=SMOOTHING)
        loss.backward()
        optimiser.step()
        return loss.item()

    return run


def serve(engine: str, folder: Path, name: str, threads: int) -> None:
    """Run three steps for the losses, and then as many as are requested."""
    answers, sys.stdout = sys.stdout, sys.stderr
    with np.load(folder / "batch.npz") as found:
        x, labels = found["x"], found["labels"]
    if engine in (OURS, BITS):
        run = ours(folder, name, x, labels, threads, "bfloat16" if engine == BITS else "float32")
    else:
        run = pytorch(folder, x, labels, threads, engine.endswith("last"), "autocast" in engine)
    print(json.dumps({"losses": [run() for _ in range(3)]}), file=answers, flush=True)
    for line in sys.stdin:
        run()
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**20 if sys.platform == "darwin" else 2**10
        )
        print(json.dumps({"times": times, "mib": peak}), file=answers, flush=True)


def compare(
    name: str, batch: int, threads: int, rounds: int, python: str, precision: str
) -> dict[str, Any]:
    """Compare all engines on one network; in bfloat16, with those in float32, too."""
    import workloads

    from tinyresnext import cifar

    measured = (BITS, *ENGINES, *AUTOCAST) if precision == "bfloat16" else ENGINES
    mine = measured[0]
    found: dict[str, dict[str, Any]] = {engine: {"times": []} for engine in measured}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        case = workloads.network(cifar(*CASES[name]), name, 1, 32)
        workloads.write(case, folder)
        rng = np.random.default_rng(0)
        x, labels = rng.standard_normal((batch, 32, 32, 3), np.float32), rng.integers(0, 10, batch)
        np.savez(folder / "batch.npz", x=x, labels=labels)
        count = str(threads)
        env = os.environ | {
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "NUMBA_NUM_THREADS": count,
        }
        started = {}
        for engine in measured:
            interpreter = sys.executable if engine in (OURS, BITS) else python
            command = [interpreter, __file__, "--serve", engine, str(folder), name, count]
            started[engine] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
            )
            found[engine] |= json.loads(started[engine].stdout.readline())
        for _ in range(rounds):
            for engine, process in started.items():
                time.sleep(REST)
                print(2, file=process.stdin, flush=True)
                answer = json.loads(process.stdout.readline())
                found[engine]["times"] += answer["times"]
                found[engine]["mib"] = answer["mib"]
        for process in started.values():
            process.stdin.close()
            process.wait()
            process.stdout.close()
    apart = max(
        abs(a / b - 1)
        for e in measured
        for a, b in zip(found[e]["losses"], found[mine]["losses"], strict=True)
    )
    if apart > TOLERANCES[precision]:
        sys.exit(f"{name}: losses are {apart:.1e} apart: {found}")
    engines = {
        e: {
            "images_per_second": batch / median(v["times"]),
            "fastest": batch / min(v["times"]),
            "mib": v["mib"],
        }
        for e, v in found.items()
    }
    peers = [e for e in measured if e.startswith("pytorch")]
    best = max(peers, key=lambda e: engines[e]["images_per_second"])
    ratio = engines[mine]["images_per_second"] / engines[best]["images_per_second"]
    result = {
        "case": name,
        "precision": precision,
        "batch": batch,
        "gflop_forward": case.gflop,
        "engines": engines,
        "losses_apart": apart,
    }
    return result | {"best_peer": best, "ratio": ratio}


def table(row: dict[str, Any]) -> str:
    """Format a result for people."""
    lines = [f"{row['case']}, batch {row['batch']}, {row['gflop_forward'] * 500:.0f} MMAC forward"]
    for engine, e in row["engines"].items():
        speed = 3 * row["gflop_forward"] * e["images_per_second"]
        lines.append(
            f"  {engine:32} {e['images_per_second']:7.1f} images/s (fastest {e['fastest']:.1f}), "
            f"{speed:6.1f} GFLOP/s, {e['mib']:6.0f} MiB"
        )
    return "\n".join(
        [*lines, f"  {row['ratio']:.2f} times the images a second of {row['best_peer']}"]
    )


def main() -> int:
    """Run all cases, print the results and write them to a file."""
    p = argparse.ArgumentParser(
        description="Compare a training step with PyTorch's; see the top of this file."
    )
    p.add_argument(
        "--case", nargs="+", default=list(CASES), choices=list(CASES), help="networks (all)"
    )
    p.add_argument("--batch", type=int, default=128, help="images in a step (128)")
    p.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count(),
        help="for every engine (as many as there are cores)",
    )
    p.add_argument(
        "--precision",
        default="float32",
        choices=list(TOLERANCES),
        help="bfloat16: ours beside PyTorch under autocast, and both in float32 (float32)",
    )
    p.add_argument("--rounds", type=int, default=6, help="turns of each engine, of two steps (6)")
    p.add_argument(
        "--python", default=sys.executable, help="the interpreter that has PyTorch (this one)"
    )
    p.add_argument(
        "--json",
        metavar="FILE",
        help="by default results/DATE-training.json beside this file; - for none",
    )
    p.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.serve:
        serve(a.serve[0], Path(a.serve[1]), a.serve[2], int(a.serve[3]))
        return 0
    from tinyresnext.bench import processor

    rows = []
    for name in a.case:
        rows.append(compare(name, a.batch, a.threads, a.rounds, a.python, a.precision))
        print(table(rows[-1]), flush=True)
    if a.json != "-":
        report = {
            "date": date.today().isoformat(),
            "processor": processor.processor(),
            "threads": a.threads,
            "cases": rows,
        }
        bits = "" if a.precision == "float32" else f"-{a.precision}"
        target = Path(a.json or HERE / "results" / f"{report['date']}-training{bits}.json")
        target.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
