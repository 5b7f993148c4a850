"""Measure cardinality against width: two families of small networks, several random seeds each.

``python benchmarks/cardinality.py cifar10-jpeg.zip --estimate`` times one step of every network and
says how many hours the whole takes; without ``--estimate`` it trains. One family has equal
multiply-adds (to 2 %), from 1 x 68d to 32 x 4d; the other has equal time of a training step on this
machine (to 4 %), which is measured first. A network can be in both. All networks see the same
images in the same recipe and differ in nothing else.

Ctrl-C stops after the current step, and the same command goes on where it was. Finished runs are
in ``runs.jsonl``, one line each with the whole curve; the networks and what a step of each costs
are in ``families.jsonl``. Both are in ``benchmarks/results/cardinality`` unless ``--out`` says
otherwise; notebook 3 draws them. States of unfinished runs are in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import tinyresnext as tr  # noqa: E402  (the path above finds it)
from tinyresnext.bench.processor import processor  # noqa: E402
from tinyresnext.data.dataset import Dataset  # noqa: E402
from tinyresnext.network.count import layers, totals  # noqa: E402
from tinyresnext.network.step import Step  # noqa: E402
from tinyresnext.ops import cpu  # noqa: E402

OUT = HERE / "results" / "cardinality"
SIDE, BATCH = 32, 128
EQUAL_WORK = ((1, 68), (2, 42), (4, 25), (8, 14), (32, 4))  # 0.087 G multiply-adds, to 2 %
EQUAL_TIME = 0.04  # what repeated timings of one network differ by
Pair = tuple[int, int]


def network(pair: Pair) -> tr.Spec:
    """Return the network of C paths of d channels: 11 layers, three stages of one block."""
    return tr.Spec((1, 1, 1), *pair, classes=10, stem="pooled")


def step_seconds(pair: Pair, batch: int, threads: int, repeats: int) -> tuple[float, int]:
    """Return the median seconds of a step of training, and the bytes of its buffers."""
    spec, rng = network(pair), np.random.default_rng(0)
    step = Step(tr.random_model(spec).params, spec, (batch, SIDE, SIDE, 3), cpu, threads=threads)
    x = rng.standard_normal(step.x_shape, np.float32)
    labels, found = rng.integers(0, 10, batch), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step(x, labels)
        found.append(time.perf_counter() - start)
    return median(found[1:]), step.bytes  # the first one compiles


def nearest(make: Callable[[int], Pair], low: int, high: int, seconds: Callable, goal: float):
    """Return the pair whose step takes nearest to ``goal`` seconds; more channels take longer."""
    tried: dict[int, float] = {}
    while low <= high:
        middle = (low + high) // 2
        tried[middle] = seconds(make(middle))[0]
        low, high = (middle + 1, high) if tried[middle] < goal else (low, middle - 1)
    return make(min(tried, key=lambda number: abs(tried[number] - goal)))


def families(a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the networks of both families, with what they cost."""
    known: dict[Pair, tuple[float, int]] = {}

    def seconds(pair: Pair) -> tuple[float, int]:
        if pair not in known:
            tell(f"timing a step of {pair[0]} x {pair[1]}d")
            known[pair] = step_seconds(pair, a.batch, a.threads, a.repeats)
        return known[pair]

    goal, equal_time = seconds(EQUAL_WORK[0])[0], []
    for paths, width in EQUAL_WORK:
        if abs(seconds((paths, width))[0] / goal - 1) <= EQUAL_TIME:
            equal_time.append((paths, width))
        elif width == 4:  # this width has a kernel of its own, so paths are more or fewer
            equal_time.append(nearest(lambda n: (4 * n, 4), paths // 8, paths // 2, seconds, goal))
        else:  # widths that are even: 2 * number
            half = width // 2
            equal_time.append(
                nearest(lambda n, c=paths: (c, 2 * n), half // 2, 2 * half, seconds, goal)
            )
    for family, pairs in (("multiply-adds", EQUAL_WORK), ("time", equal_time)):
        for pair in pairs:
            spent, size = seconds(pair)
            cost = totals(layers(network(pair), SIDE, SIDE))
            yield {
                "family": family,
                "cardinality": pair[0],
                "width": pair[1],
                "params": cost["params"],
                "macs": cost["macs"],
                "activations": cost["activations"],
                "step_seconds": float(f"{spent:.4g}"),
                "step_bytes": size,
                "batch": a.batch,
                "threads": a.threads,
                "processor": processor(),
            }


def tell(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, mode: str, *values: dict[str, Any]) -> None:
    """Write objects as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode, encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(value) + "\n" for value in values)


def some(data: Dataset, count: int) -> Dataset:
    """Return ``count`` images, as many of each class: always the same, at equal distances."""
    if count >= len(data):
        return data
    kept = np.concatenate(
        [
            own[np.linspace(0, len(own) - 1, count // len(data.classes)).astype(int)]
            for own in (np.flatnonzero(data.labels == c) for c in range(len(data.classes)))
        ]
    )
    return replace(
        data,
        labels=data.labels[kept],
        names=[data.names[i] for i in kept],
        read=lambda i: data.read(int(kept[i])),
        pixels=None if data.pixels is None else data.pixels[kept],
    )


def trained(member: dict[str, Any], seed: int, a: argparse.Namespace, data: list[Dataset]):
    """Train one network, or go on with it, and return the line of its run."""
    pair = member["cardinality"], member["width"]
    folder = a.work / f"{pair[0]}x{pair[1]}d-{seed}-{a.images}-{a.epochs}-{a.batch}"
    off = {"clip": "none", "clip_at": 0.0}  # as the recipe was when the committed runs were made
    recipe = tr.recipe("fast-cifar", epochs=a.epochs, batch=a.batch, seed=seed, **off)
    going_on = (folder / "state.npz").is_file()
    tr.train(
        network(pair),
        data[0],
        recipe,
        folder,
        validation=data[1],
        threads=a.threads,
        resume=going_on,
    )
    return member | {
        "seed": seed,
        "images": a.images,
        "validation": a.validation,
        "epochs": a.epochs,
        "curve": [line for line in lines(folder / "log.jsonl") if "epochs" in line],
        "date": date.today().isoformat(),
        "version": tr.__version__,
    }


def key(run: dict[str, Any]) -> tuple[Any, ...]:
    """Return what distinguishes a run: both families share a network and its runs."""
    return tuple(
        run[name] for name in ("cardinality", "width", "seed", "images", "epochs", "batch")
    )


def main() -> int:
    """Find the families, say how long it takes, and train what is not trained yet."""
    p = argparse.ArgumentParser(description="Measure cardinality against width.")
    p.add_argument("data", help="CIFAR-10: a zip of images, or the published archive")
    p.add_argument("--images", type=int, default=20_000, help="training images (20000)")
    p.add_argument("--validation", type=int, default=10_000, help="test images (10000)")
    p.add_argument("--epochs", type=int, default=10, help="(10)")
    p.add_argument("--batch", type=int, default=BATCH, help=f"({BATCH})")
    p.add_argument("--seeds", type=int, default=3, help="random seeds of each network (3)")
    p.add_argument("--threads", type=int, default=None, help="threads (one for each core)")
    p.add_argument("--repeats", type=int, default=20, help="timed steps of each network (20)")
    p.add_argument("--out", type=Path, default=OUT, help="the folder of the results")
    p.add_argument(
        "--work", type=Path, default=HERE.parent / "build" / "cardinality", help="states of runs"
    )
    p.add_argument("--estimate", action="store_true", help="say how long it takes, and end")
    a = p.parse_args()
    a.threads = cpu.thread_count(a.threads)
    if not (a.out / "families.jsonl").is_file():
        write(a.out / "families.jsonl", "w", *families(a))
    members = lines(a.out / "families.jsonl")
    if any((one["batch"], one["threads"]) != (a.batch, a.threads) for one in members):
        p.error(f"{a.out / 'families.jsonl'} is for another batch or threads: give another --out")
    distinct = list({(one["cardinality"], one["width"]): one for one in members}.values())
    done = lines(a.out / "runs.jsonl") if (a.out / "runs.jsonl").is_file() else []
    have, ahead = {key(run) for run in done}, []
    for seed in range(a.seeds):  # all networks with a seed before the next: a part is of use too
        for one in distinct:
            run = one | {"seed": seed, "images": a.images, "epochs": a.epochs}
            ahead += [run] if key(run) not in have else []
    hours = sum(run["step_seconds"] for run in ahead) * (a.images // a.batch) * a.epochs / 3600
    print(f"{len(done)} runs done, {len(ahead)} ahead: {hours:.1f} hours of training steps")
    if a.estimate or not ahead:
        return 0
    data = [tr.data.open_dataset(a.data, split) for split in ("train", "test")]
    data = [some(part, count) for part, count in zip(data, (a.images, a.validation), strict=True)]
    for number, run in enumerate(ahead, 1):
        name = f"{run['cardinality']} x {run['width']}d, seed {run['seed']}"
        tell(f"run {number} of {len(ahead)}: {name}")
        member = {n: v for n, v in run.items() if n not in ("family", "seed", "images", "epochs")}
        write(a.out / "runs.jsonl", "a", trained(member, run["seed"], a, data))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt as stopped:
        tell(f"{stopped}\nthe same command goes on")
        sys.exit(130)
