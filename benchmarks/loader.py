"""Measure whether making mini-batches ever keeps a step of training waiting, for each recipe.

``python benchmarks/loader.py`` prints a line for each recipe with a name: images a second of the
loader alone, of the step alone, and of both together as in a run; and which part of the time
together the step waited for a mini-batch. ``--recipe fast-cifar timm-a2`` measures some only.

The first step is not counted: before it nothing is made ahead, in a run once an epoch.

Recipes for small images see pixels in memory and train a network of 20 layers (8 x 4d); the others
read JPEGs of several sizes and train ResNeXt-50 32x4d. ``--policy NAME`` measures one more
policy of augmentation in place of that of each recipe.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import tinyresnext as tr  # noqa: E402  (the path above finds it)
from tinyresnext.data.dataset import Dataset  # noqa: E402
from tinyresnext.images.decode import decode  # noqa: E402
from tinyresnext.network.step import Step  # noqa: E402
from tinyresnext.ops import cpu  # noqa: E402
from tinyresnext.training.samples.augmentation import usual_preprocess  # noqa: E402
from tinyresnext.training.samples.mixing import mixed  # noqa: E402
from tinyresnext.training.setting import Setting  # noqa: E402

SMALL = ("facebook-cifar", "fast-cifar", "muon-cifar")
CLASSES = tuple(map(str, range(10)))
STEPS = 8  # at least so many are made together with a loader


def small(count: int) -> Dataset:
    """Return noise of 32 x 32 in memory, as CIFAR is."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    names = list(map(str, range(count)))
    labels = np.arange(count) % len(CLASSES)
    return Dataset(CLASSES, labels, names, pixels.__getitem__, pixels=pixels)


def large(folder: Path, count: int) -> Dataset:
    """Return photographs as JPEGs of several sizes, decoded each time."""
    from folder import make

    names = make(folder, count)
    labels = np.arange(count) % len(CLASSES)
    return Dataset(CLASSES, labels, names, lambda i: decode(names[i]))


def forever(setting: Setting, recipe: tr.Recipe, side: int, threads: int) -> Iterator[np.ndarray]:
    """Yield mini-batches, mixed as a run mixes them, epoch after epoch."""
    rng, epoch = np.random.default_rng(0), 0
    with setting.loader(recipe, side, threads) as loader:
        while True:
            for x, labels in loader.epoch(epoch):
                rows = np.eye(len(CLASSES), dtype=np.float32)[labels % len(CLASSES)]
                yield mixed(x, rows, recipe.loss, rng)[0]
            epoch += 1


def measured(name: str, data: Dataset, a: argparse.Namespace) -> dict[str, object]:
    """Return what one recipe reaches."""
    recipe, few = tr.recipe(name), name in SMALL
    repeats = recipe.augmentation.repeats
    batch = (128 if few else 16) // repeats * repeats
    recipe = recipe.changed({"batch": batch} | ({"policy": a.policy} if a.policy else {}))
    spec = replace(tr.cifar(20, 8, 4) if few else tr.variant("resnext50_32x4d"), classes=10)
    preprocess, threads = usual_preprocess(spec, recipe), cpu.thread_count(a.threads)
    setting = Setting(data, None, preprocess, (), cpu, threads, 0, False, {})
    side = recipe.side(0, preprocess.crop)
    step = Step(tr.random_model(spec).params, spec, (batch, side, side, 3), cpu, threads=threads)
    labels, count = np.arange(batch) % len(CLASSES), 0
    x = np.zeros(step.x_shape, np.float32)
    step(x, labels)  # this compiles

    began = time.perf_counter()
    while time.perf_counter() - began < a.seconds:
        step(x, labels)
        count += batch
    alone = count / (time.perf_counter() - began)

    def made(threads: int, work: bool) -> tuple[float, float]:
        batches, seen, waited = forever(setting, recipe, side, threads), 0, 0.0
        for _ in range(threads + 3):  # what is made ahead is not counted
            next(batches)
        if work:
            step(next(batches), labels)
        start = time.perf_counter()
        while time.perf_counter() - start < a.seconds or (work and seen < STEPS * batch):
            asked = time.perf_counter()
            x = next(batches)
            waited += time.perf_counter() - asked
            if work:
                step(x, labels)
            seen += batch
        spent = time.perf_counter() - start
        batches.close()
        return seen / spent, waited / spent

    loaders = cpu.loaders(threads)
    loader, _ = made(loaders, work=False)
    both, waited = made(loaders, work=True)
    found = {"recipe": name, "side": side, "batch": batch, "threads": threads, "loaders": loaders}
    rates = {"loader": loader, "step": alone, "together": both}
    rounded = {key: float(f"{value:.4g}") for key, value in rates.items()}
    return found | rounded | {"waited": round(waited, 4)}


def main() -> int:
    """Measure each recipe and print a table."""
    p = argparse.ArgumentParser(description="Images a second of the loader and of a step.")
    p.add_argument("--recipe", nargs="+", default=list(tr.RECIPES), choices=list(tr.RECIPES))
    p.add_argument("--policy", default="", help="in place of the recipe's, such as augmix")
    p.add_argument("--threads", type=int, default=None, help="threads (one for each core)")
    p.add_argument("--seconds", type=float, default=10.0, help="of each measurement (10)")
    p.add_argument("--json", type=Path, help="also write the results to this file")
    a = p.parse_args()
    rows = []
    print("| recipe | pixels | loader, images/s | step, images/s | together | waited |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        images = {True: small(2048)}
        if set(a.recipe) - set(SMALL):
            images[False] = large(Path(folder), 256)
        for name in a.recipe:
            r = measured(name, images[name in SMALL], a)
            rows.append(r)
            print(
                f"| `{name}` | {r['side']} | {r['loader']:g} | {r['step']:g} | {r['together']:g} "
                f"| {r['waited']:.1%} |",
                flush=True,
            )
    if a.json:
        a.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
